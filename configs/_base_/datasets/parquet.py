"""Pairs of your own in Parquet files with embedded images, as on the Hugging Face hub.

::

    data/parquet/
    `-- train-00000-of-00012.parquet, ...   columns `image` and `caption`

Needs `pip install pyarrow`. Files with large row groups are slow in random order: docs/data.md.
"""

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.ParquetDataset',
        data_root='data/parquet/',
        files='train-*.parquet',
        image_key='image',
        caption_keys='caption',
    ),
)
