"""Images per second, and the rows of a step, in the log."""

import time
from collections import deque

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.datasets import count_rows
from mmslip.registry import HOOKS

__all__ = ['ThroughputHook']


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log ``images_per_s``: samples (not views) a second over all processes.

    It is the number of samples in the last steps by the time that these took together; so many
    steps as losses are averaged over in the log (``log_processor.window_size``, 10). The time from
    the end of one step to the end of the next counts, waiting for data included, validation not.
    Where a step has rows with and without a caption, ``captioned`` and ``bare``
    count them, over all processes, too.
    """

    def before_train(self, runner: Runner) -> None:
        """Start the clock of iteration-based loops, which have one long epoch."""
        self._start = time.perf_counter()
        # Rows and seconds of the last steps.
        self._steps: deque[tuple[int, float]] = deque(maxlen=runner.log_processor.window_size)

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock, so that what lies between epochs is not counted."""
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
        captioned, rows = (n * get_world_size() for n in count_rows(data_batch['inputs']))
        self._steps.append((rows, now - self._start))
        rows_of_all, seconds = map(sum, zip(*self._steps, strict=True))
        scalars = dict(images_per_s=rows_of_all / seconds)
        if 0 < captioned < rows:
            scalars.update(captioned=captioned, bare=rows - captioned)
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        self._start = now
