"""CLIP with ViT-B/16 on YFCC15M, 25 epochs."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/views.py',
    '../_base_/datasets/yfcc15m.py',
]

batch_size = 64  # x 64 GPUs = 4096
lr = 5e-4  # for 64 GPUs x 64 = 4096

model = dict(
    type='mmslip.SLIP',
    data_preprocessor=dict(type='mmslip.SLIPDataPreprocessor'),
    backbone=dict(
        type='mmslip.VisionTransformer',
        arch='base',  # 768 wide, 12 layers, 12 heads
        img_size=224,
        patch_size=16,  # 14 x 14 patches and the class token: 197 tokens
    ),
    neck=dict(type='mmslip.LinearProjection', in_channels=768, out_channels=512),
    text_backbone=dict(
        type='mmslip.TextTransformer',
        vocab_size=49408,
        context_length=77,
        width=512,
        num_layers=12,
        num_heads=8,
    ),
    text_neck=dict(type='mmslip.LinearProjection', in_channels=512, out_channels=512),
    head=dict(type='mmslip.CLIPHead', init_temperature=0.07, max_scale=100.0),
)

train_pipeline = [
    _base_.load_image,
    *_base_.clip_view,
    dict(type='mmslip.TokenizeCaption', tokenizer=dict(type='mmslip.CLIPTokenizer')),
    dict(type='mmslip.PackSLIPInputs'),
]
train_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=train_pipeline))

# The published runs trained in fp16 (`--amp fp16`), without gradient clipping.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmslip.NoDecay1dOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.5, betas=(0.9, 0.98), eps=1e-8, fused=True),
)
param_scheduler = [
    # The first epoch: from 1e-6 to lr in even steps, one an iteration.
    dict(type='LinearLR', start_factor=1e-6 / lr, end=1, convert_to_iter_based=True),
    # From there to the last epoch: half a cosine towards 1e-5.
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=25)
auto_scale_lr = dict(base_batch_size=4096)  # 64 GPUs x 64
