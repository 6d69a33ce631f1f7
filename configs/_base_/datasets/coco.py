"""COCO Captions 2017: several captions for each image."""

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.ImageTextDataset',
        data_root='data/coco/',
        ann_file='train.jsonl',
        data_prefix=dict(img_path='images'),
        # A list of captions, of which one is drawn at every visit.
        caption_keys='caption',
    ),
)
