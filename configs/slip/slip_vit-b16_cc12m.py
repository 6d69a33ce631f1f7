"""SLIP with ViT-B/16 on CC12M, 35 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/datasets/cc12m.py',
    '../_base_/schedules/slip.py',
]

train_cfg = dict(max_epochs=35)
