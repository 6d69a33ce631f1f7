from mmslip.analysis.config import (
    check_aspect,
    check_checkpoints,
    check_hooks,
    check_learning_rate,
    check_length,
    check_official,
    check_schedule,
    total_steps,
)
from mmslip.analysis.cost import (
    Cost,
    check_loader_speed,
    check_memory,
    check_time,
    measure_loader,
    measure_training,
)
from mmslip.analysis.data import (
    check_captions,
    check_duplicates,
    check_last_batch,
    check_readable,
    check_rows,
    check_shards,
    check_words,
    draw_captions,
    over_epochs,
    watch,
)
from mmslip.analysis.exports import check_exports
from mmslip.analysis.finding import Finding
from mmslip.analysis.images import check_repeats, check_stored_sizes
from mmslip.analysis.model import (
    check_activation,
    check_batch_norm,
    check_halves,
    check_negatives,
    check_views,
)
from mmslip.analysis.validation import check_validation

__all__ = [
    'Cost',
    'Finding',
    'check_activation',
    'check_aspect',
    'check_batch_norm',
    'check_captions',
    'check_checkpoints',
    'check_duplicates',
    'check_exports',
    'check_halves',
    'check_hooks',
    'check_last_batch',
    'check_learning_rate',
    'check_length',
    'check_loader_speed',
    'check_memory',
    'check_negatives',
    'check_official',
    'check_readable',
    'check_repeats',
    'check_rows',
    'check_schedule',
    'check_shards',
    'check_stored_sizes',
    'check_time',
    'check_validation',
    'check_views',
    'check_words',
    'draw_captions',
    'measure_loader',
    'measure_training',
    'over_epochs',
    'total_steps',
    'watch',
]
