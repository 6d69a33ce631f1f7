from mmslip.engine.checkpointing.auto_resume import AutoResumeHook
from mmslip.engine.checkpointing.complete_weights import CompleteWeightsHook
from mmslip.engine.checkpointing.load_report import LoadReportHook
from mmslip.engine.checkpointing.plain_checkpoint import PlainCheckpointHook
from mmslip.engine.checkpointing.preemption import PreemptionHook
from mmslip.engine.checkpointing.resume_data import ResumeDataHook

__all__ = [
    'AutoResumeHook',
    'CompleteWeightsHook',
    'LoadReportHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'ResumeDataHook',
]
