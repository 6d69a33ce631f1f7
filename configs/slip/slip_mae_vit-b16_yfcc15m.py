"""SLIP with ViT-B/16 and mmpretrain's MAE instead of SimCLR, on YFCC15M, 25 epochs.

A starting point, not tuned: batch and learning rate are those of SLIP.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/mae.py',
    '../_base_/datasets/yfcc15m.py',
    '../_base_/schedules/slip.py',
]

# One view, cropped and flipped only.
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage', defer=True),
            dict(
                type='mmslip.SLIPViews',
                size=224,
                ssl_views=1,
                ssl_crop=(0.2, 1.0),
                jitter=None,
                gray_prob=0.0,
                blur_prob=0.0,
            ),
            dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)
