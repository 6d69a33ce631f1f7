"""SLIP with ViT-B/16 on COCO Captions, 100 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/datasets/coco.py',
    '../_base_/schedules/slip.py',
]

# Our choice, none was published: COCO has far fewer images than the other sets.
train_cfg = dict(max_epochs=100)
