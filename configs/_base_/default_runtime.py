# mmslip's parts are written `mmslip.NAME`; unprefixed names are mmpretrain's and mmengine's.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmslip.engine'])

default_hooks = dict(
    runtime_info=dict(type='mmslip.DeferredRuntimeInfoHook'),
    timer=dict(type='mmslip.TimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Written to the disk whole or not at all, while training goes on.
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        backend_args=dict(backend='atomic', background=True),
    ),
    # Epochs of large sets take hours: a checkpoint between, of which the newest is kept.
    step_checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=1000,
        max_keep_ckpts=1,
        save_last=False,
        backend_args=dict(backend='atomic', background=True),
    ),
    auto_resume=dict(type='mmslip.AutoResumeHook'),
    preemption=dict(type='mmslip.PreemptionHook'),
    instability=dict(type='mmslip.InstabilityHook'),
    speed=dict(type='mmslip.SpeedHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
custom_hooks = [
    dict(type='mmslip.ImageSizeHook'),
    dict(type='mmslip.StepSeedHook'),
    dict(type='mmslip.BatchCheckHook'),
    dict(type='mmslip.MonitorCheckHook'),
    dict(type='mmslip.ClampHook'),
    dict(type='mmslip.SharedBuffersHook'),
    dict(type='mmslip.BadSampleHook'),
    dict(type='mmslip.ResumeDataHook'),
    dict(type='mmslip.PlainCheckpointHook'),
    dict(type='mmslip.LoadReportHook'),
    dict(type='mmslip.ThroughputHook'),
    dict(type='mmslip.ProgressHook'),
    dict(type='mmslip.EvaluationRecordHook'),
    dict(type='mmslip.RunSummaryHook'),
]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# Batch norm of the self-supervised head sees the batch of all GPUs.
sync_bn = 'torch'

vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
