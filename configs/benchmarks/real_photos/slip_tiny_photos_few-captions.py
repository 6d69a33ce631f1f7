"""SLIP with images that have no caption: of the 128 rows of a batch, 64 have one."""

_base_ = ['slip_tiny_photos.py']

train_dataloader = dict(
    dataset=dict(
        weights=[1, 1],
        datasets=[
            _base_.train_dataloader.dataset.datasets[0],
            dict(
                type='mmslip.ImageTextDataset',
                keep_decoded=True,
                data_root='data/real_photos',
                ann_file='10_seed0/bare.jsonl',
                captions='ignored',
                pipeline=[
                    dict(type='mmslip.LoadImage'),
                    dict(type='mmslip.SLIPViews', image=[], ssl=[], image_views=0),
                    dict(type='mmslip.PackSLIPInputs'),
                ],
            ),
        ],
    )
)
