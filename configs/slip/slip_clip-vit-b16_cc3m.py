"""SLIP on OpenAI's CLIP ViT-B/16: the published towers, and a self-supervised half that is new.

`load_from` is the published archive; of open_clip or Hugging Face, a folder with its description.
A starting point, not tuned; for data of your own, `mmslip init NAME --data DATA --from ViT-B-16.pt
--ssl simclr` writes the like.
"""

_base_ = ['slip_vit-b16_cc3m.py']

load_from = 'ViT-B-16.pt'
model = dict(
    data_preprocessor=dict(
        mean=[122.770938, 116.746013, 104.093736],  # CLIP's, not ImageNet's
        std=[68.500533, 66.632173, 70.323165],
    ),
    backbone=dict(
        norm_cfg=dict(type='LN', eps=1e-5),
        pre_norm=True,
        patch_cfg=dict(bias=False),
        layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU')),
    ),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-4),  # for 4096; of SLIP, a thirtieth
    paramwise_cfg=dict(
        layer_decay_rate=0.75,  # what the first layers know is of use to all images
        lr_mult=dict(ssl=30.0),  # the new half learns as SLIP does, at 3e-3
    ),
)
param_scheduler = [
    dict(type='mmslip.WarmupLR', start=1e-6, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=1 / 350)]  # of half an epoch
