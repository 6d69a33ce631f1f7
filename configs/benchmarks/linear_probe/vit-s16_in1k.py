"""Linear classification of ImageNet-1k on the frozen ViT-S/16 of a checkpoint, 90 epochs."""

_base_ = ['vit-b16_in1k.py']

model = dict(
    backbone=dict(
        arch='small',
        frozen_stages=12,
        init_cfg=dict(checkpoint='work_dirs/slip_vit-s16_yfcc15m/epoch_25.pth'),
    ),
    head=dict(in_channels=384),
)
