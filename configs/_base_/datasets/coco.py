"""COCO Captions 2017: about five captions for each image, one drawn at every visit.

::

    data/coco/
    |-- annotations/captions_train2017.json
    `-- train2017/000000000009.jpg, ...
"""

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.COCOCaptionDataset',
        data_root='data/coco/',
        ann_file='annotations/captions_train2017.json',
        data_prefix=dict(img_path='train2017'),
    ),
)
