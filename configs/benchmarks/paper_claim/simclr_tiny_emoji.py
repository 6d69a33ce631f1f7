"""SimCLR of the comparison: SLIP's config without the language half and its view."""

_base_ = ['slip_tiny_emoji.py']

model = dict(neck=None, text_backbone=None, text_neck=None, head=None)

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.SLIPViews', image=[], ssl=[], image_views=0),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)

test_evaluator = [
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe'),
]
