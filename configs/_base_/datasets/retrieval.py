"""Validation by retrieval on pairs of your own: the right caption for an image and back.

An experiment says which: `val_dataloader = dict(dataset=dict(dataset=...))`, the config of any data
set of images with captions, and `test_dataloader` likewise.
"""

val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmslip.RetrievalDataset',
        task='held_out',
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='mmslip.ResizeCenterCrop', size=224),
            dict(type='mmslip.TokenizeCaptions'),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
val_evaluator = dict(type='mmslip.RetrievalRecall')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
