"""The main job with captions for one vendor's drawings only; all others' join in without."""

_base_ = ['slip_tiny_emoji.py']

captioned = _base_.train_dataloader.dataset
views, tokenize, pack = captioned.pipeline
train_dataloader = dict(
    batch_size=256,  # 64 of them with a caption
    sampler=dict(shuffle=False),  # the mixture is in random order
    dataset=dict(
        _delete_=True,
        type='mmslip.MixedDataset',
        datasets=[
            dict(captioned, vendors=['noto']),  # 1,498 drawings
            dict(
                captioned,
                vendors=['noto-v1', 'twemoji', 'emojione', 'fxemoji'],  # 4,712 drawings
                captions='ignored',
                pipeline=[dict(views, image_views=0), pack],
            ),
        ],
        weights=[1, 3],
        stratified=True,  # in every batch of every process
        length=6144,  # samples in an epoch: 24 steps
    ),
)
del captioned, views, tokenize, pack  # the sources have them
