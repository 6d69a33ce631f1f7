"""The views of `views.py` from the operations of the published runs: Pillow under torchvision.

For repeating a published run to the letter, at a fifth of the speed: let an experiment's `_base_`
name this file instead of `views.py`.
"""

load_image = dict(type='mmslip.LoadImage')

to_pillow = dict(type='NumpyToPIL', to_rgb=True)
to_numpy = dict(type='PILToNumpy', to_bgr=True)

clip_view = [
    to_pillow,
    dict(type='torchvision/RandomResizedCrop', size=224, scale=(0.5, 1.0)),
    to_numpy,
]

ssl_view = [
    to_pillow,
    dict(type='torchvision/RandomResizedCrop', size=224, scale=(0.08, 1.0)),
    dict(
        type='RandomApply',
        prob=0.8,
        transforms=[
            dict(
                type='torchvision/ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1,
            )
        ],
    ),
    dict(type='torchvision/RandomGrayscale', p=0.2),
    dict(type='torchvision/RandomHorizontalFlip', p=0.5),  # commutes with the blur
    to_numpy,
    # Pillow's blur, as in the published runs, which torchvision does not have. 'inf': its radius is
    # uniform in the range.
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5),
]
