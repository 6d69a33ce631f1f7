"""Logged values stay on the device until somebody looks at them."""

import math
import time

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from mmslip.registry import HOOKS

__all__ = ['DeferredRuntimeInfoHook']

# What is shown of a run is at most about this old.
_SECONDS = 2.0
# Steps of which the message hub keeps the values.
_KEPT = 10_000


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which does not wait for the device in every step.

    mmengine's own asks for the value of each loss after each step. The host then waits until the
    device has finished, and the device for the host to queue the next step. Here the values are
    read together: in the steps in which :class:`mmengine.hooks.LoggerHook` logs, at the end of an
    epoch, and about every two seconds, for :class:`ProgressHook`. Of several processes the mean is
    logged, which is the loss of the whole batch; mmengine logs the part of the first process.

    Of everything that is logged, the message hub keeps the values of the last 10,000 steps, over
    which a ``log_processor`` can average. mmengine keeps a million and copies all of them in every
    step, which takes more and more of a long run's time.
    """

    def before_train(self, runner: Runner) -> None:
        """Note how often the logger logs."""
        super().before_train(runner)
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = min(intervals, default=1)
        self._waiting: dict[str, list[Tensor]] = {}
        self._steps = 1  # from one reading to the next
        self._since, self._taken = time.monotonic(), 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the values of this step, and read all that are waiting where they are wanted."""
        for key, value in (outputs or {}).items():
            self._waiting.setdefault(key, []).append(torch.as_tensor(value).detach())
        self._taken += 1
        logs = self.every_n_inner_iters(batch_idx, self._interval)
        if (
            logs
            or self._taken >= self._steps
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
        ):
            self._read(runner)

    def after_train(self, runner: Runner) -> None:
        """Read what an iteration-based loop has left."""
        self._read(runner)

    def _read(self, runner: Runner) -> None:
        for key, values in self._waiting.items():
            values = torch.stack(values).float()
            all_reduce(values, op='mean')
            for value in values.tolist():
                runner.message_hub.update_scalar(f'train/{key}', value)
        self._waiting.clear()
        for buffer in runner.message_hub.log_scalars.values():
            buffer.max_length = _KEPT
        # All processes have to read in the same steps, whatever their clocks say.
        pace = torch.tensor((time.monotonic() - self._since) / max(self._taken, 1))
        all_reduce(pace, op='max')
        self._steps = max(math.floor(_SECONDS / max(pace.item(), 1e-6)), 1)
        self._since, self._taken = time.monotonic(), 0
