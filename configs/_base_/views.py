"""The views SLIP, CLIP and SimCLR were published with; an experiment puts its pipeline together.

`views_torchvision.py` has the same views from the operations of the published runs, at a fifth of
the speed; `views_device.py` leaves colours and blur to the device, for half as much speed again.
"""

# Decoded when the crops are drawn: a large JPEG only as large as they need it.
load_image = dict(type='mmslip.LoadImage', defer=True)

# Language half: a mild crop and no flip, since a caption may say where something is.
clip_view = [dict(type='mmslip.RandomResizedCrop', scale=224, crop_ratio_range=(0.5, 1.0))]

# Self-supervised half: SimCLR's views, without solarisation.
ssl_view = [
    dict(type='mmslip.RandomResizedCrop', scale=224, crop_ratio_range=(0.08, 1.0)),
    dict(
        type='mmslip.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8
    ),
    dict(type='mmslip.RandomGrayscale', prob=0.2),
    dict(type='mmslip.GaussianBlur', sigma=(0.1, 2.0), prob=0.5),
    dict(type='mmslip.RandomFlip', prob=0.5),
]
