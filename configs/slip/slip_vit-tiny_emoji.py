"""SLIP on the embedded emoji: the whole of mmslip on two CPU cores in about ten minutes.

Trained on the drawings of five vendors, evaluated on those of a sixth (task `val`) and on concepts
that none of the training drawings shows (task `concepts`).
"""

_base_ = ['../_base_/default_runtime.py']

batch_size = 128  # 6,210 drawings: 48 steps an epoch; small data wants many steps
max_epochs = 20
lr = 2e-3
image_size = 32  # half the drawings' side: what vendors share survives, their outlines do not
view_size = 16  # of the self-supervised views, which so cost a quarter of the tokens

model = dict(
    type='mmslip.SLIP',
    data_preprocessor=dict(type='mmslip.SLIPDataPreprocessor'),
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=image_size,
        patch_size=8,  # 4 x 4 patches and the class token; 2 x 2 for the self-supervised views
    ),
    neck=dict(type='mmslip.LinearProjection', in_channels=128, out_channels=128),
    text_backbone=dict(
        type='mmslip.TextTransformer', context_length=32, width=128, num_layers=2, num_heads=4
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=128, out_channels=128),
    head=dict(type='mmslip.CLIPHead', init_temperature=0.07),
    ssl=dict(
        type='mmslip.SimCLR',
        neck=dict(
            type='NonLinearNeck',  # 128 -> 512 -> 512 -> 128
            in_channels=128,
            hid_channels=512,
            out_channels=128,
            num_layers=3,
            with_bias=True,
            with_last_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),
        ),
        head=dict(type='mmslip.SimCLRHead', temperature=0.1),
    ),
    ssl_weight=1.0,
)

tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=32)
# Softer than for photographs: a drawing is one thing on white, so a crop of a tenth of it shows
# nothing, and its colour is often all that tells it from another (hearts, circles, books).
train_pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(
        type='mmslip.MultiView',
        num_views=[1, 2],
        transforms=[
            [
                dict(
                    type='mmslip.RandomResizedCrop', scale=image_size, crop_ratio_range=(0.5, 1.0)
                ),
            ],
            [
                dict(type='mmslip.RandomResizedCrop', scale=view_size, crop_ratio_range=(0.3, 1.0)),
                dict(
                    type='mmslip.ColorJitter',
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.4,
                    hue=0.1,
                    prob=0.8,
                ),
                dict(type='mmslip.RandomFlip', prob=0.5),
            ],
        ],
    ),
    dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
    dict(type='mmslip.PackSLIPInputs'),
]
test_pipeline = [
    dict(type='mmslip.LoadImage'),
    dict(type='Resize', scale=(image_size, image_size), interpolation='area'),
    dict(type='mmslip.PackSLIPInputs'),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    drop_last=True,
    sampler=dict(type='mmslip.VisitSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmslip.EmojiDataset', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ConcatDataset',
        # Each part is a task of its own, with classes of its own.
        ignore_keys=['task', 'classes'],
        datasets=[
            dict(type='mmslip.EmojiDataset', split='val', pipeline=test_pipeline, test_mode=True),
            dict(
                type='mmslip.EmojiDataset', split='concepts', pipeline=test_pipeline, test_mode=True
            ),
        ],
    ),
)
val_evaluator = dict(type='mmslip.ZeroShotAccuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmslip.NoDecay1dOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-8, fused=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmslip.ZeroShotHook', templates=['{}'], tokenizer=tokenizer),
    dict(type='mmslip.RetrievalPictureHook', task='val'),
]
default_hooks = dict(
    logger=dict(interval=24),
    checkpoint=dict(save_best='zero_shot/val_top1', rule='greater'),
)
