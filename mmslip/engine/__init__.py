from mmslip.engine import checkpoint  # noqa: F401  (registers the safe checkpoint loader)
from mmslip.engine.hooks import (
    BadSampleHook,
    CompleteWeightsHook,
    EvaluationRecordHook,
    PlainCheckpointHook,
    ProgressHook,
    ResumeDataHook,
    RetrievalPictureHook,
    RunSummaryHook,
    StepSeedHook,
    ThroughputHook,
    ZeroShotHook,
)
from mmslip.engine.optim import BF16OptimWrapper, NoDecay1dOptimWrapperConstructor

__all__ = [
    'BF16OptimWrapper',
    'BadSampleHook',
    'CompleteWeightsHook',
    'EvaluationRecordHook',
    'NoDecay1dOptimWrapperConstructor',
    'PlainCheckpointHook',
    'ProgressHook',
    'ResumeDataHook',
    'RetrievalPictureHook',
    'RunSummaryHook',
    'StepSeedHook',
    'ThroughputHook',
    'ZeroShotHook',
]
