"""CLIP's model and mmpretrain's Barlow Twins on its image tower."""

_base_ = ['../models/clip_vit-b16.py']

model = dict(
    ssl=dict(
        type='BarlowTwins',
        neck=dict(
            type='NonLinearNeck',  # width of the tower -> 8192 -> 8192 -> 8192
            hid_channels=8192,
            out_channels=8192,
            num_layers=3,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),  # over all GPUs: `sync_bn` of the runtime
        ),
        head=dict(
            type='LatentCrossCorrelationHead',
            in_channels=8192,
            loss=dict(type='CrossCorrelationLoss'),
        ),
    ),
    # The loss is a sum over dimensions: a thousand times the language half's if left so. On N
    # processes its gradient is 1/N of the exact one; N / 8192 makes up for that.
    ssl_weight=1 / 8192,
)
