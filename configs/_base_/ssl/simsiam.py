"""CLIP's model and mmpretrain's SimSiam on its image tower."""

_base_ = ['../models/clip_vit-b16.py']

model = dict(
    ssl=dict(
        type='SimSiam',
        neck=dict(
            type='NonLinearNeck',  # width of the tower -> 2048 -> 2048 -> 2048
            hid_channels=2048,
            out_channels=2048,
            num_layers=3,
            with_last_bn_affine=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),  # over all GPUs: `sync_bn` of the runtime
        ),
        head=dict(
            type='LatentPredictHead',
            predictor=dict(
                type='NonLinearNeck',  # 2048 -> 512 -> 2048
                in_channels=2048,
                hid_channels=512,
                out_channels=2048,
                with_last_bn=False,
                with_last_bias=True,
                with_avg_pool=False,
                norm_cfg=dict(type='BN1d'),
            ),
            loss=dict(type='CosineSimilarityLoss'),
        ),
    ),
    ssl_weight=1.0,
)
