"""SLIP's optimiser and schedule, 25 epochs.

The published runs trained in fp16 (`--amp fp16`), without gradient clipping.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmslip.NoDecay1dOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW',
        lr=3e-3,  # for 64 GPUs x 64 = 4096
        weight_decay=0.1,
        betas=(0.9, 0.98),
        eps=1e-8,
        fused=True,
    ),
)
param_scheduler = [
    # The first epoch: from 1e-6 to lr in even steps, one an iteration.
    dict(type='mmslip.WarmupLR', start=1e-6, end=1, convert_to_iter_based=True),
    # From there to the last epoch: half a cosine towards 1e-5.
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=25)
auto_scale_lr = dict(base_batch_size=4096)  # 64 GPUs x 64
