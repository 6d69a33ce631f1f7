"""Pairs of your own in a JSONL, CSV or TSV file, up to a few million; for more see table.py.

::

    data/pairs/
    |-- train.jsonl    {"image": "a/1.jpg", "caption": "a red chair"}
    `-- images/a/1.jpg, ...

A caption may be a list of texts, of which one is drawn at every visit.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.ImageTextDataset',
        data_root='data/pairs/',
        ann_file='train.jsonl',
        data_prefix=dict(img_path='images'),
        image_key='image',
        caption_keys=('caption',),
    ),
)
