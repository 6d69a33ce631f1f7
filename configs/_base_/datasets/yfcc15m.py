"""YFCC15M: 14,689,580 photographs with a title, a description or both."""

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.ImageTextDataset',
        data_root='data/yfcc15m/',
        ann_file='train.jsonl',
        data_prefix=dict(img_path='images'),
        # One of the two is drawn at every visit; one of them may be empty.
        caption_keys=('title', 'description'),
    ),
)
