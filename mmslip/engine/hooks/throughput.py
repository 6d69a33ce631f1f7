"""Images per second in the log."""

import time

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.registry import HOOKS

__all__ = ['ThroughputHook']


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log ``images_per_s``: samples (not views) a second over all processes.

    The time from the end of one step to the end of the next counts, waiting for data included,
    validation not.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock, so that what lies between epochs is not counted."""
        self._start = time.perf_counter()

    def before_train(self, runner: Runner) -> None:
        """Start the clock of iteration-based loops, which have one long epoch."""
        self._start = time.perf_counter()

    def after_val(self, runner: Runner) -> None:
        """Start the clock again where an iteration-based loop has validated."""
        self._start = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Log the step that has ended."""
        now = time.perf_counter()
        images = _batch_size(data_batch) * get_world_size()
        runner.message_hub.update_scalar('train/images_per_s', images / (now - self._start))
        self._start = now


def _batch_size(data_batch: dict) -> int:
    """Length of the first tensor in a batch."""
    value = data_batch['inputs']
    while isinstance(value, dict | list):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return len(value)
