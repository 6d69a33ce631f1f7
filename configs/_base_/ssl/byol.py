"""CLIP's model and mmpretrain's BYOL, which keeps a momentum copy of tower and neck."""

_base_ = ['../models/clip_vit-b16.py']

model = dict(
    ssl=dict(
        type='BYOL',
        base_momentum=0.01,  # falls to 0 along a cosine over the training
        neck=dict(
            type='NonLinearNeck',  # width of the tower -> 4096 -> 256
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),  # over all GPUs: `sync_bn` of the runtime
        ),
        head=dict(
            type='LatentPredictHead',
            predictor=dict(
                type='NonLinearNeck',  # 256 -> 4096 -> 256
                in_channels=256,
                hid_channels=4096,
                out_channels=256,
                num_layers=2,
                with_bias=True,
                with_last_bn=False,
                with_avg_pool=False,
                norm_cfg=dict(type='BN1d'),
            ),
            loss=dict(type='CosineSimilarityLoss'),
        ),
    ),
    ssl_weight=1.0,
)
