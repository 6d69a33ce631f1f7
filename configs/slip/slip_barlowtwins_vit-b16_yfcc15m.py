"""SLIP with ViT-B/16 and mmpretrain's Barlow Twins instead of SimCLR, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

dimensions = 8192

# A starting point, not tuned: batch, learning rate and views are those of SLIP.
model = dict(
    ssl=dict(
        _delete_=True,
        type='BarlowTwins',
        neck=dict(
            type='NonLinearNeck',  # 768 -> 8192 -> 8192 -> 8192
            in_channels=768,
            hid_channels=dimensions,
            out_channels=dimensions,
            num_layers=3,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),  # over all GPUs: `sync_bn` of the runtime
        ),
        head=dict(
            type='LatentCrossCorrelationHead',
            in_channels=dimensions,
            loss=dict(type='CrossCorrelationLoss'),
        ),
    ),
    # The loss is a sum over dimensions: a thousand times the language half's if left so. On N
    # processes its gradient is 1/N of the exact one; N / dimensions makes up for that.
    ssl_weight=1 / dimensions,
)
