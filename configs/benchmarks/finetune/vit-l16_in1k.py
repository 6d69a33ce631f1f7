"""Fine-tuning of the ViT-L/16 of a checkpoint on ImageNet-1k by BEiT's recipe, 50 epochs."""

_base_ = ['vit-b16_in1k.py']

model = dict(
    backbone=dict(
        arch='large',
        init_cfg=dict(checkpoint='work_dirs/slip_vit-l16_yfcc15m/epoch_25.pth'),
    ),
    head=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(type='mmslip.WarmupLR', start=1e-6, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=2.5e-4, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)
