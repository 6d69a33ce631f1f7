"""The main job: SLIP on the embedded emoji, in nine minutes of two CPU cores.

Trained on the drawings of five vendors, evaluated on those of a sixth (task `val`) and on concepts
that none of the training drawings shows (task `concepts`). Settings were chosen by trainings
without EmojiOne's drawings, judged on those (docs/benchmarks.md). The last checkpoint counts, not
the best.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/ssl/simclr.py',
    '../_base_/views/slip.py',
    '../_base_/datasets/emoji_evaluation.py',
    '../_base_/schedules/slip.py',
]

# Drawings stay decoded in memory, and a whole batch is cut and coloured at once.
warp = dict(
    type='mmslip.DeviceWarp',
    aspect=(0.8, 1.25),
    degrees=10,
    shear=0.1,
    bend=0.03,
    samples=1,  # between four pixels of a drawing, which has twice as many along each side
)
colour = dict(
    type='mmslip.DeviceAugment',
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.05,
    gray_prob=0.0,
    blur_prob=0.0,
)
# Batch norm centres the embeddings: at first most of each is common to all, and cosines say little.
projection = dict(_delete_=True, type='LinearNeck', out_channels=128, norm_cfg=dict(type='BN1d'))
model = dict(
    data_preprocessor=dict(
        mean=[255, 255, 255],  # white, the paper of all drawings, is zero, as is a border
        std=[76, 76, 76],
        image_augment=[dict(warp, size=32, area=(0.7, 1.45)), colour],
        view_augment=[dict(warp, size=16, area=(0.3, 1.0), flip_prob=0.5), colour],
    ),
    backbone=dict(_delete_=True, type='mmslip.ConvTower', width=64, out_channels=256),
    neck=projection,
    # A vocabulary of 4,000 merges: most of the optimiser's work would be on words never seen.
    # Sixteen heads: of four, all come to read the same word, and names of another one are equal.
    text_backbone=dict(vocab_size=4514, context_length=16, width=256, num_layers=1, num_heads=16),
    text_neck=projection,
    head=dict(max_scale=20.0),  # a sharper softmax would learn the drawings by heart
    ssl=dict(neck=dict(hid_channels=512, out_channels=128)),  # 256 -> 512 -> 512 -> 128
    ssl_weight=0.3,  # at 1.0 it learns the names more slowly
)

tokenizer = dict(type='mmslip.CLIPTokenizer', context_length=16, num_merges=4000)
train_dataloader = dict(
    batch_size=256,  # 6,210 drawings: 24 steps an epoch
    num_workers=0,  # a drawing takes 0.16 ms, decoded once: both cores compute
    dataset=dict(
        type='mmslip.EmojiDataset',
        split='train',
        pipeline=[
            dict(type='mmslip.SLIPViews', image=[], ssl=[]),  # whole; see image_augment
            dict(type='mmslip.TokenizeCaption', tokenizer=tokenizer),
            dict(type='mmslip.PackSLIPInputs'),
        ],
    ),
)

optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.5))  # lr for a batch of 256
param_scheduler = [
    dict(type='mmslip.WarmupLR', start=3e-6, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=80, val_interval=20)
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmslip.ZeroShotHook', templates=['{}'], tokenizer=tokenizer),
    dict(type='mmslip.PixelBaselineHook'),
    dict(type='mmslip.RetrievalPictureHook', task='val', topk=5, from_start=True),
]
default_hooks = dict(logger=dict(interval=24), checkpoint=dict(interval=20, max_keep_ckpts=1))
del warp, colour, projection, tokenizer  # the model, the loaders and the hook have them
