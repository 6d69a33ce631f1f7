"""Loader of image-text pairs with the views that SLIP was published with; `datasets/` say of what.

A caption that has several texts gives one at every visit. Other views, other captions or fewer
parts: an experiment writes a pipeline of its own, as CLIP's and SimCLR's do.
"""

train_dataloader = dict(
    batch_size=64,  # x 64 GPUs = 4096
    num_workers=8,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='mmslip.collate'),
    dataset=dict(
        pipeline=[
            # Decoded when the crops are drawn: a large JPEG only as large as they need it.
            dict(type='mmslip.LoadImage', defer=True),
            dict(type='mmslip.SLIPViews', size=224),  # one of the language half, two of SimCLR's
            dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    ),
)
