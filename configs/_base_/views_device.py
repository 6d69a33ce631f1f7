"""The views of `views.py` with colour jitter, grayscale and blur on the device, a batch at a time.

For few CPU cores per GPU: let an experiment's `_base_` name this file instead of `views.py`.
"""

load_image = dict(type='mmslip.LoadImage', defer=True)

clip_view = [dict(type='mmslip.RandomResizedCrop', scale=224, crop_ratio_range=(0.5, 1.0))]

ssl_view = [
    dict(type='mmslip.RandomResizedCrop', scale=224, crop_ratio_range=(0.08, 1.0)),
    dict(type='mmslip.RandomFlip', prob=0.5),
]

model = dict(
    data_preprocessor=dict(
        view_augment=dict(
            type='mmslip.DeviceAugment',
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            jitter_prob=0.8,
            gray_prob=0.2,
            blur_prob=0.5,
            sigma=(0.1, 2.0),
        )
    )
)
