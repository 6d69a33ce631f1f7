"""SimCLR with ViT-B/16 on YFCC15M, 25 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/datasets/yfcc15m.py',
    '../_base_/schedules/simclr.py',
]

# Without the language half, its view and the captions.
model = dict(neck=None, text_backbone=None, text_neck=None, head=None)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage', defer=True),
            dict(type='mmslip.SLIPViews', size=224, image_views=0),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)
