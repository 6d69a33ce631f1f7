"""COCO Captions 2017: about five captions for each image, one drawn at every visit.

::

    data/coco/
    |-- annotations/captions_train2017.json
    `-- train2017/000000000009.jpg, ...
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.COCOCaptionDataset',
        data_root='data/coco/',
        ann_file='annotations/captions_train2017.json',
        data_prefix=dict(img_path='train2017'),
    ),
)
