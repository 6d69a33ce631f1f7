"""CLIP's model and mmpretrain's MoCo v3, which keeps a momentum copy of tower and neck."""

_base_ = ['../models/clip_vit-b16.py']

model = dict(
    ssl=dict(
        type='MoCoV3',
        base_momentum=0.01,
        neck=dict(
            type='NonLinearNeck',  # width of the tower -> 4096 -> 4096 -> 256
            hid_channels=4096,
            out_channels=256,
            num_layers=3,
            with_bias=False,
            with_last_bn=True,
            with_last_bn_affine=False,
            with_last_bias=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),  # over all GPUs: `sync_bn` of the runtime
        ),
        head=dict(
            type='MoCoV3Head',
            predictor=dict(
                type='NonLinearNeck',  # 256 -> 4096 -> 256
                in_channels=256,
                hid_channels=4096,
                out_channels=256,
                num_layers=2,
                with_bias=False,
                with_last_bn=True,
                with_last_bn_affine=False,
                with_last_bias=False,
                with_avg_pool=False,
                norm_cfg=dict(type='BN1d'),
            ),
            temperature=0.2,  # of MoCo v3 with ViT, whose loss is times twice the temperature:
            loss=dict(type='CrossEntropyLoss', loss_weight=2 * 0.2),
        ),
    ),
    ssl_weight=1.0,
)
