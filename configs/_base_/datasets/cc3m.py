"""CC3M (Conceptual Captions): one caption for each image."""

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.ImageTextDataset',
        data_root='data/cc3m/',
        ann_file='train.jsonl',
        data_prefix=dict(img_path='images'),
        caption_keys='caption',
    ),
)
