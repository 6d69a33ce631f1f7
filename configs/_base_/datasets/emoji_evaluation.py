"""Evaluation on the embedded emoji: unseen vendor (task `val`), unseen concepts (`concepts`)."""

test_pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(type='Resize', scale=(32, 32), interpolation='area'),
    dict(type='mmslip.PackSLIPInputs'),
]
evaluated = dict(type='mmslip.EmojiDataset', pipeline=test_pipeline, test_mode=True)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        # Each part is a task of its own, with classes of its own.
        ignore_keys=['task', 'classes'],
        datasets=[dict(evaluated, split='val'), dict(evaluated, split='concepts')],
    ),
)
val_evaluator = dict(type='mmslip.ZeroShotAccuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
del evaluated  # the loaders have it
