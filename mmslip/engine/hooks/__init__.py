from mmslip.engine.hooks.auto_resume import AutoResumeHook
from mmslip.engine.hooks.bad_samples import BadSampleHook
from mmslip.engine.hooks.compile import CompileHook
from mmslip.engine.hooks.complete_weights import CompleteWeightsHook
from mmslip.engine.hooks.deferred_log import DeferredRuntimeInfoHook
from mmslip.engine.hooks.evaluation_record import EvaluationRecordHook
from mmslip.engine.hooks.gradient_checkpoint import GradientCheckpointHook
from mmslip.engine.hooks.instability import InstabilityHook
from mmslip.engine.hooks.plain_checkpoint import PlainCheckpointHook
from mmslip.engine.hooks.preemption import PreemptionHook
from mmslip.engine.hooks.progress import ProgressHook
from mmslip.engine.hooks.resume_data import ResumeDataHook
from mmslip.engine.hooks.retrieval_picture import RetrievalPictureHook
from mmslip.engine.hooks.run_summary import RunSummaryHook
from mmslip.engine.hooks.step_seed import StepSeedHook
from mmslip.engine.hooks.throughput import ThroughputHook
from mmslip.engine.hooks.zero_shot import ZeroShotHook

__all__ = [
    'AutoResumeHook',
    'BadSampleHook',
    'CompileHook',
    'CompleteWeightsHook',
    'DeferredRuntimeInfoHook',
    'EvaluationRecordHook',
    'GradientCheckpointHook',
    'InstabilityHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'ProgressHook',
    'ResumeDataHook',
    'RetrievalPictureHook',
    'RunSummaryHook',
    'StepSeedHook',
    'ThroughputHook',
    'ZeroShotHook',
]
