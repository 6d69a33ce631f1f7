"""Pairs in a caption table: many millions of your own, or CC3M and CC12M as the authors list them.

::

    data/pairs/
    |-- train.table/       made by a script of tools/dataset_converters: to_table.py from a JSONL,
    |                      CSV or TSV file, official_pickle.py from a .npy or .pkl of the authors
    `-- images/a/1.jpg, ...
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.TableDataset',
        data_root='data/pairs/',
        ann_file='train.table',
        data_prefix=dict(img_path='images'),
    ),
)
