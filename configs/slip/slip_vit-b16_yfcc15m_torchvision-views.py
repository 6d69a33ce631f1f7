"""SLIP with ViT-B/16 on YFCC15M, with the operations of the published runs: Pillow and torchvision.

For repeating a published run to the letter, at a fifth of the speed.
"""

_base_ = ['slip_vit-b16_yfcc15m.py']

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(
                type='mmslip.SLIPViews',
                image=[
                    dict(type='NumpyToPIL', to_rgb=True),
                    dict(type='torchvision/RandomResizedCrop', size=224, scale=(0.5, 1.0)),
                    dict(type='PILToNumpy', to_bgr=True),
                ],
                ssl=[
                    dict(type='NumpyToPIL', to_rgb=True),
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
                    dict(type='PILToNumpy', to_bgr=True),
                    # Pillow's blur, which torchvision does not have. 'inf': its radius is uniform
                    # in the range.
                    dict(
                        type='mmpretrain.GaussianBlur',
                        magnitude_range=(0.1, 2.0),
                        magnitude_std='inf',
                        prob=0.5,
                    ),
                ],
            ),
            dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
            dict(type='mmslip.PackSLIPInputs'),
        ]
    )
)
