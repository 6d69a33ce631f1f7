"""SLIP with timm's CoAtNet-0 instead of a ViT, on YFCC15M, 25 epochs (`pip install timm`)."""

_base_ = ['slip_vit-b16_yfcc15m.py']

# A starting point, not tuned: batch and learning rate are those of SLIP.
model = dict(
    backbone=dict(_delete_=True, type='TIMMBackbone', model_name='coatnet_0_rw_224'),
    ssl=dict(neck=dict(type='mmslip.MLPProjection')),
)
