"""SLIP with mmpretrain's Swin-T instead of a ViT, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch and learning rate are those of SLIP.
model = dict(
    backbone=dict(_delete_=True, type='SwinTransformer', arch='tiny'),
    ssl=dict(neck=dict(type='mmslip.MLPProjection')),
)
