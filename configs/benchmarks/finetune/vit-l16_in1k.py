"""Fine-tuning of the ViT-L/16 of a checkpoint on ImageNet-1k by BEiT's recipe, 50 epochs."""

_base_ = ['vit-b16_in1k.py']

pretrained = 'work_dirs/slip_vit-l16_yfcc15m/epoch_25.pth'
max_epochs = 50
warmup_epochs = 5

model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6 / _base_.lr,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / _base_.lr,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
