"""SLIP with ViT-B/16 on CC3M, 40 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/datasets/cc3m.py',
    '../_base_/schedules/slip.py',
]

train_cfg = dict(max_epochs=40)
