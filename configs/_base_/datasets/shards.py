"""Pairs of your own in tar shards, as img2dataset writes them with `output_format='webdataset'`.

::

    data/shards/
    `-- 00000.tar, 00001.tar, ...   members 000000012.jpg and 000000012.json (or .txt), ...

The caption stands under `caption` in the .json; for other keys, change `caption_keys`.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.ShardDataset',
        data_root='data/shards/',
        shards='*.tar',
        caption_keys='caption',
    ),
)
