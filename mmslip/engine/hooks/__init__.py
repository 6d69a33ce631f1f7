from mmslip.engine.hooks.bad_samples import BadSampleHook
from mmslip.engine.hooks.complete_weights import CompleteWeightsHook
from mmslip.engine.hooks.evaluation_record import EvaluationRecordHook
from mmslip.engine.hooks.plain_checkpoint import PlainCheckpointHook
from mmslip.engine.hooks.progress import ProgressHook
from mmslip.engine.hooks.resume_data import ResumeDataHook
from mmslip.engine.hooks.retrieval_picture import RetrievalPictureHook
from mmslip.engine.hooks.run_summary import RunSummaryHook
from mmslip.engine.hooks.step_seed import StepSeedHook
from mmslip.engine.hooks.throughput import ThroughputHook
from mmslip.engine.hooks.zero_shot import ZeroShotHook

__all__ = [
    'BadSampleHook',
    'CompleteWeightsHook',
    'EvaluationRecordHook',
    'PlainCheckpointHook',
    'ProgressHook',
    'ResumeDataHook',
    'RetrievalPictureHook',
    'RunSummaryHook',
    'StepSeedHook',
    'ThroughputHook',
    'ZeroShotHook',
]
