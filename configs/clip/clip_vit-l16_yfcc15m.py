"""CLIP with ViT-L/16 on YFCC15M, 25 epochs."""

_base_ = ['clip_vit-b16_yfcc15m.py']

model = dict(backbone=dict(arch='large'))  # 1024 wide, 24 layers, 16 heads
