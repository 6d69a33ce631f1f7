"""CLIP with ViT-B/16 on CC12M, 35 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/clip_vit-b16.py',
    '../_base_/datasets/cc12m.py',
    '../_base_/schedules/clip.py',
]

# One mild crop, no flip.
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage', defer=True),
            dict(type='mmslip.SLIPViews', size=224, ssl_views=0),
            dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)
train_cfg = dict(max_epochs=35)
