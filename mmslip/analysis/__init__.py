from mmslip.analysis.config import (
    check_activation,
    check_aspect,
    check_batch_norm,
    check_checkpoints,
    check_learning_rate,
    check_official,
    find_all,
)
from mmslip.analysis.cost import check_loader_speed, check_memory, measure_loader, measure_training
from mmslip.analysis.data import (
    check_captions,
    check_duplicates,
    check_last_batch,
    check_readable,
    check_rows,
    check_shards,
    draw_captions,
    watch,
)
from mmslip.analysis.finding import Finding

__all__ = [
    'Finding',
    'check_activation',
    'check_aspect',
    'check_batch_norm',
    'check_captions',
    'check_checkpoints',
    'check_duplicates',
    'check_last_batch',
    'check_learning_rate',
    'check_loader_speed',
    'check_memory',
    'check_official',
    'check_readable',
    'check_rows',
    'check_shards',
    'draw_captions',
    'find_all',
    'measure_loader',
    'measure_training',
    'watch',
]
