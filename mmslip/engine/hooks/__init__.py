from mmslip.engine.hooks.bad_samples import BadSampleHook
from mmslip.engine.hooks.batch_check import (
    BatchCheckHook,
    captioned_rows,
    check_batches,
)
from mmslip.engine.hooks.clamp import ClampHook
from mmslip.engine.hooks.deferred_log import DeferredRuntimeInfoHook
from mmslip.engine.hooks.evaluation_record import EvaluationRecordHook
from mmslip.engine.hooks.image_size import ImageSizeHook
from mmslip.engine.hooks.instability import InstabilityHook
from mmslip.engine.hooks.monitor_check import MonitorCheckHook, check_monitored
from mmslip.engine.hooks.pixel_baseline import PixelBaselineHook
from mmslip.engine.hooks.progress import ProgressHook
from mmslip.engine.hooks.retrieval_picture import RetrievalPictureHook
from mmslip.engine.hooks.run_summary import RunSummaryHook
from mmslip.engine.hooks.shared_buffers import SharedBuffersHook
from mmslip.engine.hooks.step_seed import StepSeedHook
from mmslip.engine.hooks.throughput import ThroughputHook
from mmslip.engine.hooks.timer import TimerHook
from mmslip.engine.hooks.zero_shot import ZeroShotHook

__all__ = [
    'BadSampleHook',
    'BatchCheckHook',
    'ClampHook',
    'DeferredRuntimeInfoHook',
    'EvaluationRecordHook',
    'ImageSizeHook',
    'InstabilityHook',
    'MonitorCheckHook',
    'PixelBaselineHook',
    'ProgressHook',
    'RetrievalPictureHook',
    'RunSummaryHook',
    'SharedBuffersHook',
    'StepSeedHook',
    'ThroughputHook',
    'TimerHook',
    'ZeroShotHook',
    'captioned_rows',
    'check_batches',
    'check_monitored',
]
