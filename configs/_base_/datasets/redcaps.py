"""RedCaps: one caption for each image, in the layout of its own downloader.

::

    data/redcaps/
    |-- annotations/abandoned_2017.json, ...   SUBREDDIT_YEAR.json
    `-- images/abandoned/guli1.jpg, ...        SUBREDDIT/IMAGE_ID.jpg

Entries whose image could not be fetched are left out.
"""

train_dataloader = dict(
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.RedCapsDataset',
        data_root='data/redcaps/',
        ann_file='annotations/*.json',
        data_prefix=dict(img_path='images'),
    ),
)
