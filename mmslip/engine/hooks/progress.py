"""How far a run is: a live line on a terminal, plain lines now and then elsewhere."""

import atexit
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from rich.console import Console
from rich.live import Live
from rich.text import Text

from mmslip.datasets import count_rows
from mmslip.registry import HOOKS

__all__ = ['ProgressHook']

_REDRAW = 0.2  # seconds between two drawings at least
_SILENCE = 30.0  # seconds after which a plain line is due
_WINDOW = 50  # steps over which speed is averaged


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show how far training, validation and test are.

    *On a terminal* one line is redrawn in place: step, share, time left, speed, losses, accuracies;
    of a narrow terminal the last of these are left out. It takes the place of mmengine's log lines,
    of which each leaves a short one above it, and which stand in the log file in full. Other lines
    of the log scroll above it.

    *Elsewhere* (a file, a pipe, a Slurm log) nothing is redrawn. mmengine's log lines are printed,
    and a line of this hook wherever there was none for half a minute.
    """

    # After the logger, so that its line is above.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._live: Live | None = None
        self._console: Console | None = None
        self._lines: _LogLines | None = None
        self._handlers: list[tuple[logging.StreamHandler, object]] = []
        self._stage = ''  # that began the drawing and ends it
        self._drawn = 0.0

    def before_train(self, runner: Runner) -> None:
        """Begin."""
        self._begin(runner, 'train')

    def before_val(self, runner: Runner) -> None:
        """Say that a validation is prepared, as by embedding class names."""
        self._begin(runner, 'val')
        self._draw(['validation: preparing'])

    def before_test(self, runner: Runner) -> None:
        """Say that a test is prepared."""
        self._begin(runner, 'test')
        self._draw(['test: preparing'])

    def before_val_epoch(self, runner: Runner) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    before_test_epoch = before_val_epoch

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Redraw; leave a short line where the logger has written a long one."""
        if self._lines is None:
            return
        logged, self._lines.swallowed = self._lines.swallowed, False
        if logged:
            now, width = time.strftime('%H:%M:%S'), self._console.width
            text = _fit([now, *_training(runner, data_batch, logged=True)], width)
            self._console.print(text, markup=False, highlight=False)
        if self._is_due() or runner.iter + 1 == runner.max_iters:
            self._draw(_training(runner, data_batch), runner)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Redraw."""
        self._evaluating(runner, 'validation', runner.val_dataloader, batch_idx, data_batch)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Redraw."""
        self._evaluating(runner, 'test', runner.test_dataloader, batch_idx, data_batch)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Leave a line of the metrics on a terminal, without their intervals."""
        if self._live is not None:
            ends = ('_low', '_high')
            figures = [
                f'{key} {value:.2f}'
                for key, value in (metrics or {}).items()
                if isinstance(value, float | int) and not key.endswith(ends)
            ]
            text = '  '.join([time.strftime('%H:%M:%S'), 'validation', *figures])
            self._console.print(text, markup=False, highlight=False)

    def after_train(self, runner: Runner) -> None:
        """End."""
        self._end('train')

    def after_val(self, runner: Runner) -> None:
        """End, if this was no validation of a training."""
        self._end('val')

    def after_test(self, runner: Runner) -> None:
        """End."""
        self._end('test')

    def _begin(self, runner: Runner, stage: str) -> None:
        """Start drawing, and send the logger's terminal output through the same screen."""
        if self._stage or not is_main_process():
            return
        self._stage = stage
        self._console = _Console()
        drawing = sys.stdout.isatty() and not self._console.is_dumb_terminal
        self._lines = _LogLines(drawing)
        if drawing:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            # A run that fails must still give the screen back.
            atexit.register(self._live.stop)
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(self._lines)
                self._handlers.append((handler, handler.stream))
                # `start` replaced sys.stdout by a stream that prints above the live line.
                handler.setStream(sys.stdout)

    def _end(self, stage: str) -> None:
        """Stop drawing and give the terminal back."""
        if self._stage != stage:
            return
        if self._live is not None:
            self._live.stop()
            atexit.unregister(self._live.stop)
        for handler, stream in self._handlers:
            handler.removeFilter(self._lines)
            handler.setStream(stream)
        self._live = self._console = self._lines = None
        self._stage, self._handlers = '', []

    def _is_due(self) -> bool:
        now = time.monotonic()
        if self._live is not None:
            return now - self._drawn > _REDRAW
        return self._lines is not None and now - self._lines.last > _SILENCE

    def _draw(self, fields: Sequence[str], runner: Runner | None = None) -> None:
        """Draw the line, or write it where nothing is drawn."""
        self._drawn = time.monotonic()
        if self._live is not None:
            line = Text(_fit(fields, self._console.width - 1), no_wrap=True, overflow='ellipsis')
            self._live.update(line, refresh=True)
        elif runner is not None and self._is_due():
            runner.logger.info('  '.join(fields))

    def _evaluating(
        self, runner: Runner, name: str, loader: Sequence, batch_idx: int, batch: dict | None
    ) -> None:
        if self._lines is None:
            return
        done, total = batch_idx + 1, len(loader)
        if done == total:
            self._draw([f'{name} {done}/{total}: computing the metrics'], runner)
        elif self._is_due():
            seconds = (time.monotonic() - self._started) / done
            images = count_rows(batch['inputs'])[1] * get_world_size()
            place = _place(name, done, total, seconds * (total - done))
            self._draw([*place, _speed(images, seconds)], runner)


class _Console(Console):
    """A console that leaves the cursor visible: a run that is killed could not bring it back."""

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing."""
        return False

    def print(self, *objects: Any, **settings: Any) -> None:
        """Leave long lines to the terminal to wrap, so that a command in one can be copied."""
        super().print(*objects, **{'soft_wrap': True, **settings})


class _LogLines(logging.Filter):
    """Keeps mmengine's log lines off a terminal, and notes when anything was printed.

    Args:
        drawing: Whether a live line shows what they say.
    """

    def __init__(self, drawing: bool) -> None:
        super().__init__()
        self.drawing = drawing
        self.last = time.monotonic()
        self.swallowed = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is printed."""
        if self.drawing and record.filename == 'logger_hook.py':
            self.swallowed |= record.getMessage().startswith(('Epoch(train)', 'Iter(train)'))
            return False
        self.last = time.monotonic()
        return True


def _training(runner: Runner, batch: dict | None, logged: bool = False) -> Iterator[str]:
    """What a line says of a training, the most important first.

    Args:
        runner: The run.
        batch: The batch of its last step.
        logged: Whether losses are means over the steps since the logger wrote last, as its own are,
            not those of the last step.
    """
    scalars = {
        key.removeprefix('train/'): value
        for key, value in runner.message_hub.log_scalars.items()
        if key.startswith('train/')
    }
    done, total = runner.iter + 1, runner.max_iters
    seconds = scalars['time'].mean(_WINDOW) if 'time' in scalars else math.nan
    yield from _place('step', done, total, runner.message_hub.runtime_info.get('eta', math.nan))
    yield _speed(count_rows(batch['inputs'])[1] * get_world_size(), seconds)
    steps = runner.log_processor.window_size if logged else 1
    yield from _figures(scalars, steps)


def _place(name: str, done: int, total: int, left: float) -> Iterator[str]:
    yield f'{name} {done}/{total}'
    if math.isfinite(left):
        yield f'left {duration(left)}'


def duration(seconds: float) -> str:
    """Minutes and seconds, and hours and days where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f'{hours}:{minutes:02}:{rest:02}' if hours or days else f'{minutes}:{rest:02}'
    return f'{days} d {text}' if days else text


def _speed(images: int, seconds: float) -> str:
    rate = images / max(seconds, 1e-9)
    return f'{rate:.{0 if rate >= 10 else 1}f} img/s'


def _figures(scalars: dict[str, HistoryBuffer], steps: int) -> Iterator[str]:
    """Losses, what went wrong, accuracies, and the scale of the logits."""

    def shown(start: str, form: str) -> Iterator[str]:
        for key in filter(lambda key: key.startswith(start), scalars):
            yield form.format(key.removeprefix('loss_'), scalars[key].mean(steps))

    losses = list(shown('loss_', '{} {:.3f}'))
    yield from losses or shown('loss', '{} {:.3f}')
    yield from shown('skipped_steps', '{} {:.0f}')
    yield from shown('rollbacks', '{} {:.0f}')
    yield from shown('acc_', '{} {:.0f}%')
    yield from shown('logit_scale', 'scale {1:.1f}')


def _fit(fields: Sequence[str], width: int) -> str:
    """As many fields as there is room for, the first always."""
    line = ''
    for field in fields:
        longer = f'{line}  {field}' if line else field
        if line and len(longer) > width:
            break
        line = longer
    return line
