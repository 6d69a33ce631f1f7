"""RedCaps: one caption for each image, in the layout of its own downloader.

::

    data/redcaps/
    |-- annotations/abandoned_2017.json, ...   SUBREDDIT_YEAR.json
    `-- images/abandoned/guli1.jpg, ...        SUBREDDIT/IMAGE_ID.jpg

Entries whose image could not be fetched are left out.
"""

_base_ = ['../views/slip.py']

train_dataloader = dict(
    dataset=dict(
        type='mmslip.RedCapsDataset',
        data_root='data/redcaps/',
        ann_file='annotations/*.json',
        data_prefix=dict(img_path='images'),
    ),
)
