"""SLIP with ViT-B/16 and mmpretrain's SimSiam instead of SimCLR, on YFCC15M, 25 epochs.

A starting point, not tuned: batch, learning rate and views are those of SLIP.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simsiam.py',
    '../_base_/datasets/yfcc15m.py',
    '../_base_/schedules/slip.py',
]
