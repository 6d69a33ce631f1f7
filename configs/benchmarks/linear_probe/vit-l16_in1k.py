"""Linear classification of ImageNet-1k on the frozen ViT-L/16 of a checkpoint, 90 epochs."""

_base_ = ['vit-b16_in1k.py']

model = dict(
    backbone=dict(
        arch='large',
        frozen_stages=24,
        init_cfg=dict(checkpoint='work_dirs/slip_vit-l16_yfcc15m/epoch_25.pth'),
    ),
    head=dict(in_channels=1024),
)
