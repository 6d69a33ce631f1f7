"""SLIP of the comparison with CLIP and SimCLR: `python tools/benchmarks/paper_claim.py`.

The model and schedule of `configs/slip/slip_tiny_emoji.py`, but one more vendor, Twemoji, is held
out of training and judged (task `unseen`, and `kinds` for kNN and linear classification): settings
were chosen on EmojiOne's drawings. Nothing is validated on the way: the last checkpoint counts.
"""

_base_ = ['../../slip/slip_tiny_emoji.py']

seen_vendors = ('noto', 'noto-v1', 'emojione', 'fxemoji')

train_dataloader = dict(dataset=dict(vendors=seen_vendors))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=30)
val_cfg = val_dataloader = val_evaluator = None

# Names of a vendor that is not trained on, of another, and of things that are not trained on.
evaluated = dict(_base_.val_dataloader.dataset.datasets[0])
kinds = dict(evaluated, split='train', label='subgroup', task='kinds')
test_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(evaluated, split='train', vendors=['twemoji'], task='unseen'),
            evaluated,
            dict(evaluated, split='concepts'),
            dict(kinds, vendors=seen_vendors, role='reference'),
            dict(kinds, vendors=['twemoji']),
        ],
        ignore_keys=['task', 'classes', 'role'],
    )
)
test_evaluator = [
    dict(type='mmslip.ZeroShotAccuracy', topk=(1, 5)),
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe'),
]

# Without those that look at the validation.
custom_hooks = [
    hook
    for hook in _base_.custom_hooks
    if hook['type'] not in ('mmslip.PixelBaselineHook', 'mmslip.RetrievalPictureHook')
]
default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook', interval=30))
del evaluated, kinds, seen_vendors  # the loaders have them
