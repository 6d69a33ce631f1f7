"""Zero-shot transfer to the 26 sets of the paper; here with SLIP's ViT-B/16.

`--tasks food101 pets` takes a part of the sets, `--model CONFIG` another model.
"""

_base_ = [
    '../../slip/slip_vit-b16_yfcc15m.py',
    '../../_base_/datasets/zero_shot_26.py',
]

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmslip.ZeroShotHook', cache_dir='work_dirs/class_embeddings'),
]
