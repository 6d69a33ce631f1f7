"""Pairs of your own in Parquet files with embedded images, as on the Hugging Face hub.

::

    data/parquet/
    `-- train-00000-of-00012.parquet, ...   columns `image` and `caption`

Needs `pip install pyarrow`. Files with large row groups are slow in random order: docs/data.md.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.ParquetDataset',
        data_root='data/parquet/',
        files='train-*.parquet',
        image_key='image',
        caption_keys='caption',
    ),
)
