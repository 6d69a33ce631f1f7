"""SLIP with mmpretrain's ResNet-50 instead of a ViT, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch and learning rate are those of SLIP.
model = dict(
    # `sync_bn` of the runtime also synchronises the batch norm of the backbone.
    backbone=dict(_delete_=True, type='ResNet', depth=50),
    ssl=dict(neck=dict(with_avg_pool=True)),
)
