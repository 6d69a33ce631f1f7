"""Few images with captions, many without, which train the self-supervised half alone.

::

    data/pairs/
    |-- train.jsonl    {"image": "a/1.jpg", "caption": "a red chair"}
    |-- images/a/1.jpg, ...
    `-- bare/...       images without a caption, in folders of any depth

Either source may be of another layout, such as those of table.py and shards.py.
"""

_base_ = ['../views/slip.py']

load, views, tokenize, pack = _base_.train_dataloader.dataset.pipeline
train_dataloader = dict(
    batch_size=64,  # 8 of them with a caption
    sampler=dict(shuffle=False),  # the mixture is in random order
    dataset=dict(
        _delete_=True,
        type='mmslip.MixedDataset',
        datasets=[
            dict(
                type='mmslip.ImageTextDataset',
                data_root='data/pairs/',
                ann_file='train.jsonl',
                data_prefix=dict(img_path='images'),
                pipeline=[load, views, tokenize, pack],
            ),
            dict(
                type='mmslip.FolderDataset',
                data_root='data/pairs/bare/',
                # No view of the language half is made, nor decoded for.
                pipeline=[load, dict(views, image_views=0), pack],
            ),
        ],
        weights=[1, 7],
        stratified=True,  # in every batch of every process
        length=1_000_000,  # samples in an epoch, of both sources
    ),
)
del load, views, tokenize, pack  # the sources have them
