"""Fine-tuning of the ViT-S/16 of a checkpoint on ImageNet-1k by BEiT's recipe, 100 epochs."""

_base_ = ['vit-b16_in1k.py']

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/slip_vit-s16_yfcc15m/epoch_25.pth'),
    ),
    head=dict(in_channels=384),
)
