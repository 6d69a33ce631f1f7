"""SLIP with ViT-B/16 on YFCC15M, 25 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/datasets/yfcc15m.py',
    '../_base_/schedules/slip.py',
]
