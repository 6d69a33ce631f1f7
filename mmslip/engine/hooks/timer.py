"""How long a training will take, validations included."""

import time
from typing import Any

from mmengine.hooks import IterTimerHook
from mmengine.runner import Runner

from mmslip.registry import HOOKS

__all__ = ['TimerHook']

_WINDOW = 50  # steps over which the time of a step is averaged


@HOOKS.register_module()
class TimerHook(IterTimerHook):
    """mmengine's ``IterTimerHook``, whose time left counts what lies between steps, too.

    mmengine multiplies the steps that are left with the mean time of a step, and leaves out
    validations and what else is done at the end of an epoch. Here each step that is left is taken
    to last as long as the last 50 did, and to bring as much time between steps as those of this run
    have so far: none until the first validation. The log shows it as ``eta``, in seconds, and
    :class:`ProgressHook` as the time left.
    """

    def before_train(self, runner: Runner) -> None:
        """Begin anew."""
        super().before_train(runner)
        self._begun: float | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the clock with the first epoch: what prepares a training comes once."""
        super().before_train_epoch(runner)
        if self._begun is None:
            self._begun = self.t

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the time of the step, and the time left."""
        super().after_train_iter(runner, *args, **kwargs)
        done = runner.iter - self.start_iter + 1
        between = time.time() - self._begun - self.time_sec_tot
        seconds = runner.message_hub.get_scalar('train/time').mean(_WINDOW) + between / done
        left = runner.max_iters - runner.iter - 1
        runner.message_hub.update_info('eta', float(seconds * left))
