"""SimCLR of the comparison: SLIP's config without the language half and its view."""

_base_ = ['slip_vit-tiny_emoji.py']

model = dict(neck=None, text_backbone=None, text_neck=None, head=None)

view = [
    dict(type='mmslip.RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0)),
    dict(
        type='mmslip.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8
    ),
    dict(type='mmslip.RandomFlip', prob=0.5),
]
train_pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(type='mmslip.MultiView', num_views=[2], transforms=[view]),
    dict(type='mmslip.PackSLIPInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

test_evaluator = [
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe'),
]
