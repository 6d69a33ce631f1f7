"""CLIP of the comparison: SLIP's config without the self-supervised half and its views."""

_base_ = ['slip_vit-tiny_emoji.py']

model = dict(ssl=None)

train_pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(type='mmslip.RandomResizedCrop', scale=32, crop_ratio_range=(0.5, 1.0)),
    dict(type='mmslip.TokenizeCaption', tokenizer=_base_.tokenizer),
    dict(type='mmslip.PackSLIPInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
