"""SLIP with ViT-B/16 on YFCC15M, 50 epochs."""

_base_ = ['slip_vit-b16_yfcc15m.py']

train_cfg = dict(max_epochs=50)
