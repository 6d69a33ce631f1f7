"""CLIP on photographs with five captions each, of which a visit draws one.

`python tools/benchmarks/several_captions.py` trains and judges this and its neighbour, which takes
all five. An epoch is a tenth of a training and as long as the comparison makes it (`length`).
Towers, optimiser and schedule are those of `real_photos`, for larger pictures and longer texts.
"""

_base_ = ['../real_photos/clip_tiny_photos.py']

image_size = 64
tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=24, num_merges=4000)
# Photographs have many sizes here, so each is cut and coloured by itself.
model = dict(
    data_preprocessor=dict(_delete_=True, type='mmslip.SLIPDataPreprocessor'),
    backbone=dict(width=32, num_stages=3),  # 16 x 16 places, 8 x 8 and 4 x 4
    text_backbone=dict(context_length=24),
)
photographs = dict(
    type='mmslip.ImageTextDataset',
    data_root='data/flickr',
    ann_file='captions.jsonl',
    data_prefix=dict(img_path='images'),
    subset=dict(split='work_dirs/several_captions/split.json', part='train'),
)
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                photographs,
                keep_decoded=True,
                pipeline=[
                    dict(type='mmslip.LoadImage'),
                    dict(
                        type='mmslip.SLIPViews',
                        ssl_views=0,
                        image=[
                            dict(
                                type='mmslip.RandomResizedCrop',
                                scale=image_size,
                                crop_ratio_range=(0.3, 1.0),
                            ),
                            dict(type='mmslip.RandomFlip', prob=0.5),
                            dict(
                                type='mmslip.ColorJitter',
                                **dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.05),
                                prob=0.8,
                            ),
                        ],
                    ),
                    dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
                    dict(type='mmslip.PackSLIPInputs'),
                ],
            )
        ]
    )
)
test_dataloader = dict(
    batch_size=100,
    dataset=dict(
        _delete_=True,
        type='mmslip.RetrievalDataset',
        task='photos',
        dataset=dict(
            photographs, subset=dict(split='work_dirs/several_captions/split.json', part='held_out')
        ),
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='mmslip.ResizeCenterCrop', size=image_size),
            dict(type='mmslip.TokenizeCaptions', tokenizer=tokenizer),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)
test_evaluator = dict(_delete_=True, type='mmslip.RetrievalRecall', topk=(1, 5, 10))
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'mmslip.ZeroShotHook']
del image_size, tokenizer, photographs
