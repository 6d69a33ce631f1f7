"""A live progress line in the terminal."""

import atexit
import logging
import sys

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmslip.registry import HOOKS

__all__ = ['ProgressHook']

# Log key -> how the line shows it.
_FIELDS = {
    'loss_clip': 'clip {:.3f}',
    'loss_ssl': 'ssl {:.3f}',
    'acc_clip': 'acc_clip {:.0f}%',
    'acc_ssl': 'acc_ssl {:.0f}%',
    'logit_scale': 'scale {:.1f}',
    'images_per_s': '{:.0f} img/s',
}


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show one line that is redrawn in place: step, losses, accuracies, speed, time left.

    Log lines scroll above it. Nothing is drawn where the output is not a terminal (a file, a Slurm
    log): the log lines, which carry the same figures and the time left, are all that belongs there.
    """

    # After the logger, so that its line is above.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._handlers: list[tuple[logging.StreamHandler, object]] = []

    def before_train(self, runner: Runner) -> None:
        """Start drawing, and send the logger's terminal output through the same screen."""
        if not is_main_process() or not sys.stdout.isatty():
            return
        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=20),
            TextColumn('{task.percentage:.0f}%'),
            TextColumn('{task.fields[figures]}'),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(
            'train', total=runner.max_iters, completed=runner.iter, figures=''
        )
        self._progress.start()
        # A run that fails must still give the cursor back.
        atexit.register(self._progress.stop)
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                # `start` replaced sys.stdout by a stream that prints above the live line.
                self._handlers.append((handler, handler.setStream(sys.stdout)))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Redraw."""
        if self._progress is None:
            return
        scalars = runner.message_hub.log_scalars
        figures = [
            text.format(scalars[f'train/{key}'].current())
            for key, text in _FIELDS.items()
            if f'train/{key}' in scalars
        ]
        self._progress.update(
            self._task,
            completed=runner.iter + 1,
            description=f'step {runner.iter + 1}/{runner.max_iters}',
            figures='  '.join(figures),
        )

    def after_train(self, runner: Runner) -> None:
        """Stop drawing and give the terminal back."""
        if self._progress is None:
            return
        self._progress.stop()
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._progress, self._handlers = None, []
