"""SimCLR: the SLIP of this folder without the language half and its view, on all photographs."""

_base_ = ['slip_tiny_photos.py']

model = dict(neck=None, text_backbone=None, text_neck=None, head=None)

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type='mmslip.ImageTextDataset',
                keep_decoded=True,
                data_root='data/real_photos',
                ann_file='100_seed0/captioned.jsonl',
                captions='ignored',
                pipeline=[
                    dict(type='mmslip.LoadImage'),
                    dict(type='mmslip.SLIPViews', image=[], ssl=[], image_views=0),
                    dict(type='mmslip.PackSLIPInputs'),
                ],
            ),
        ]
    )
)
test_evaluator = [
    dict(type='mmslip.KNNAccuracy', k=20, temperature=0.07),
    dict(type='mmslip.LinearProbe', l2=(0.1, 0.01)),
]
