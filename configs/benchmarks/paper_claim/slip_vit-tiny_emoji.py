"""SLIP of the comparison with CLIP and SimCLR: `python tools/benchmarks/paper_claim.py`.

The model and schedule of `configs/slip/slip_vit-tiny_emoji.py`, but one more vendor, EmojiOne, is
held out of training. Its drawings served no choice of a setting, so the figures on it (task
`unseen`, and `kinds` for kNN and linear classification) are those of a test. Nothing is validated
on the way: the last checkpoint counts.
"""

_base_ = ['../../slip/slip_vit-tiny_emoji.py']

max_epochs = 10  # 4,949 drawings: 38 steps of 128 an epoch
seen_vendors = ('noto', 'noto-v1', 'twemoji', 'fxemoji')

train_dataloader = dict(dataset=dict(vendors=seen_vendors))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=max_epochs)
val_cfg = val_dataloader = val_evaluator = None

# Names of a vendor that is not trained on, of another, and of things that are not trained on.
evaluated = dict(type='mmslip.EmojiDataset', pipeline=_base_.test_pipeline, test_mode=True)
kinds = dict(evaluated, split='train', label='subgroup', task='kinds')
test_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(evaluated, split='train', vendors=['emojione'], task='unseen'),
            dict(evaluated, split='val'),
            dict(evaluated, split='concepts'),
            dict(kinds, vendors=seen_vendors, role='reference'),
            dict(kinds, vendors=['emojione']),
        ],
        ignore_keys=['task', 'classes', 'role'],
    )
)
test_evaluator = [
    dict(type='mmslip.ZeroShotAccuracy', topk=(1, 5)),
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe'),
]

default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook', interval=max_epochs))
