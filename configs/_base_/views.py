"""The views SLIP, CLIP and SimCLR were published with; an experiment puts its pipeline together.

Pillow's resize averages over the pixels it merges, as the published runs did; 'cv2' is faster and
aliases.
"""

# Language half: a mild crop and no flip, since a caption may say where something is.
clip_view = [
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.5, 1.0), backend='pillow')
]

# Self-supervised half: SimCLR's views, without solarisation.
ssl_view = [
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.08, 1.0), backend='pillow'),
    dict(
        type='mmslip.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8
    ),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989),  # luma of BGR
    ),
    # 'inf': sigma is uniform in the range.
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5),
    dict(type='RandomFlip', prob=0.5),
]
