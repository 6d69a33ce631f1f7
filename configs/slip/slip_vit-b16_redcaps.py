"""SLIP with ViT-B/16 on RedCaps, 35 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/datasets/redcaps.py',
    '../_base_/schedules/slip.py',
]

# Our choice, none was published: as long as on CC12M.
train_cfg = dict(max_epochs=35)
