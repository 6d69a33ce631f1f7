"""SLIP: CLIP's model and SimCLR on its image tower."""

_base_ = ['../models/clip_vit-b16.py']

model = dict(
    ssl=dict(
        type='mmslip.SimCLR',
        neck=dict(
            type='NonLinearNeck',  # width of the tower -> 4096 -> 4096 -> 256
            hid_channels=4096,
            out_channels=256,
            num_layers=3,
            with_bias=True,
            with_last_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),  # over all GPUs: `sync_bn` of the runtime
        ),
        head=dict(type='mmslip.SimCLRHead', temperature=0.1),
    ),
    ssl_weight=1.0,
)
