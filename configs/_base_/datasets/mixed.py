"""CC3M and CC12M together, laid out as cc3m.py and cc12m.py beside this file say.

Every source has a pipeline of its own, which an experiment sets by naming the sources again:
`dataset=dict(datasets=[dict(_base_.cc3m, pipeline=train_pipeline), ...])`.
"""

cc3m = dict(
    type='mmslip.ConceptualCaptionsDataset',
    data_root='data/cc3m/',
    ann_file='Train_GCC-training.tsv',
    columns=('caption', 'url'),
    data_prefix=dict(img_path='images'),
    image_name='{folder:05d}/{row:09d}.jpg',
)
cc12m = dict(
    type='mmslip.ConceptualCaptionsDataset',
    data_root='data/cc12m/',
    ann_file='cc12m.tsv',
    columns=('url', 'caption'),
    data_prefix=dict(img_path='images'),
    image_name='{folder:05d}/{row:09d}.jpg',
)

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=False),  # the mixture is in random order
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.MixedDataset',
        datasets=[cc3m, cc12m],
        weights=[3, 12],  # about their sizes in millions: each image is as frequent as any other
        length=15_000_000,  # samples in an epoch
    ),
)
