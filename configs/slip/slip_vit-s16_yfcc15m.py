"""SLIP with ViT-S/16 on YFCC15M, 25 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

model = dict(backbone=dict(arch='small'))  # 384 wide, 12 layers, 12 heads
