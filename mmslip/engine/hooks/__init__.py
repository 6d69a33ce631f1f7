from mmslip.engine.hooks.plain_checkpoint import PlainCheckpointHook
from mmslip.engine.hooks.progress import ProgressHook
from mmslip.engine.hooks.retrieval_picture import RetrievalPictureHook
from mmslip.engine.hooks.run_summary import RunSummaryHook
from mmslip.engine.hooks.step_seed import StepSeedHook
from mmslip.engine.hooks.throughput import ThroughputHook
from mmslip.engine.hooks.zero_shot import ZeroShotHook

__all__ = [
    'PlainCheckpointHook',
    'ProgressHook',
    'RetrievalPictureHook',
    'RunSummaryHook',
    'StepSeedHook',
    'ThroughputHook',
    'ZeroShotHook',
]
