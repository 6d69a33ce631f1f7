"""SLIP with ViT-B/16 on YFCC15M, with colour jitter, grayscale and blur on the device.

For few CPU cores per GPU: the loader only crops and flips, half as fast again as with all of it.
"""

_base_ = ['slip_vit-b16_yfcc15m.py']

model = dict(data_preprocessor=dict(view_augment=dict(type='mmslip.DeviceAugment')))
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage', defer=True),
            dict(type='mmslip.SLIPViews', size=224, jitter=None, gray_prob=0.0, blur_prob=0.0),
            dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)
