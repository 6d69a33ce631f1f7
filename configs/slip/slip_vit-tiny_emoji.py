"""SLIP on the embedded emoji: the whole of mmslip on two CPU cores in about ten minutes.

Trained on the drawings of five vendors, evaluated on those of a sixth (task `val`) and on concepts
that none of the training drawings shows (task `concepts`).
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/views/slip.py',
    '../_base_/datasets/emoji_evaluation.py',
    '../_base_/schedules/slip.py',
]

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512
        ),
        img_size=32,  # half the drawings' side: what vendors share survives, their outlines do not
        patch_size=8,  # 4 x 4 patches and the class token; 2 x 2 for the self-supervised views
    ),
    neck=dict(out_channels=128),
    text_backbone=dict(context_length=32, width=128, num_layers=2, num_heads=4),
    text_neck=dict(out_channels=128),
    ssl=dict(neck=dict(hid_channels=512, out_channels=128)),  # 128 -> 512 -> 512 -> 128
)

tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=32)
train_pipeline = [
    dict(type='mmslip.LoadImage'),
    # Softer than for photographs: a drawing is one thing on white, so a crop of a tenth of it shows
    # nothing, and its colour is often all that tells it from another (hearts, circles, books).
    dict(
        type='mmslip.SLIPViews',
        size=32,
        ssl_size=16,  # costs a quarter of the tokens
        ssl_crop=(0.3, 1.0),
        gray_prob=0.0,
        blur_prob=0.0,
    ),
    dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
    dict(type='mmslip.PackSLIPInputs'),
]
train_dataloader = dict(
    batch_size=128,  # 6,210 drawings: 48 steps an epoch; small data wants many steps
    num_workers=2,
    dataset=dict(type='mmslip.EmojiDataset', split='train', pipeline=train_pipeline),
)

optim_wrapper = dict(optimizer=dict(lr=2e-3))  # for a batch of 128
param_scheduler = [
    dict(type='mmslip.WarmupLR', start=2e-6, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20, val_interval=5)
auto_scale_lr = dict(base_batch_size=128)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmslip.ZeroShotHook', templates=['{}'], tokenizer=tokenizer),
    dict(type='mmslip.RetrievalPictureHook', task='val'),
]
default_hooks = dict(
    logger=dict(interval=24),
    checkpoint=dict(save_best='zero_shot/val_top1', rule='greater'),
)
del tokenizer  # the loaders and the hook have them
