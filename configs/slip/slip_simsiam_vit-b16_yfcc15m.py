"""SLIP with ViT-B/16 and mmpretrain's SimSiam instead of SimCLR, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch, learning rate and views are those of SLIP.
model = dict(
    ssl=dict(
        _delete_=True,
        type='SimSiam',
        neck=dict(
            type='NonLinearNeck',  # 768 -> 2048 -> 2048 -> 2048
            in_channels=768,
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
)
