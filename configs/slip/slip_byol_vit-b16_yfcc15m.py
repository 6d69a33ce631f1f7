"""SLIP with ViT-B/16 and mmpretrain's BYOL instead of SimCLR, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch, learning rate and views are those of SLIP.
model = dict(
    # It keeps a momentum copy of backbone and neck.
    ssl=dict(
        _delete_=True,
        type='BYOL',
        base_momentum=0.01,  # falls to 0 along a cosine over the training
        neck=dict(
            type='NonLinearNeck',  # 768 -> 4096 -> 256
            in_channels=768,
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
)
