"""Fine-tuning of the ViT-B/16 of a checkpoint on ImageNet-1k by BEiT's recipe, 100 epochs."""

_base_ = ['../../_base_/default_runtime.py', '../../_base_/datasets/imagenet.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch='base',  # 768 wide, 12 layers, 12 heads
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/slip_vit-b16_yfcc15m/epoch_25.pth',
            prefix='backbone.',  # of SLIP, CLIP or SimCLR alike: only the backbone is taken
        ),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    # Each batch gets one of both, at random.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

train_dataloader = dict(
    batch_size=128,  # x 8 GPUs = 1024
    dataset=dict(
        pipeline=[
            dict(type='mmslip.LoadImage'),
            dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
            dict(type='mmslip.RandomFlip', prob=0.5),
            dict(
                type='RandAugment',  # rand-m9-mstd0.5-inc1
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
            ),
            dict(
                type='RandomErasing',
                erase_prob=0.25,
                mode='rand',
                min_area_ratio=0.02,
                max_area_ratio=1 / 3,
                fill_color=[103.53, 116.28, 123.675],  # BGR, as images are here
                fill_std=[57.375, 57.12, 58.395],
            ),
            dict(type='PackInputs'),
        ]
    ),
)

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LearningRateDecayOptimWrapperConstructor',
    # lr for 8 GPUs x 128 = 1024; of the head: each layer below has `layer_decay_rate` of the next
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05, betas=(0.9, 0.999)),
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.0,  # biases and norms
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
        },
    ),
)
# Rates of the head; the layers start and end at the same fractions of their own.
param_scheduler = [
    dict(type='mmslip.WarmupLR', start=1e-6, end=20, convert_to_iter_based=True),
    # To 4e-3 * 2.5e-4 = 1e-6.
    dict(type='CosineAnnealingLR', eta_min_ratio=2.5e-4, begin=20, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=100)
auto_scale_lr = dict(base_batch_size=1024)  # 8 GPUs x 128
# The protocol and the task, by which results are recorded and stand beside the published ones.
val_evaluator = dict(prefix='finetune/imagenet')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='finetune/imagenet/top1', rule='greater'))
