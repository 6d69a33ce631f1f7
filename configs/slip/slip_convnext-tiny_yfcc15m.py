"""SLIP with mmpretrain's ConvNeXt-T instead of a ViT, on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch and learning rate are those of SLIP.
model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='tiny'),
    ssl=dict(neck=dict(type='mmslip.MLPProjection')),
)
