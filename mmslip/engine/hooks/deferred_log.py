"""Logged values stay on the device until the logger wants them."""

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from mmslip.registry import HOOKS

__all__ = ['DeferredRuntimeInfoHook']


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which does not wait for the device in every step.

    mmengine's own asks for the value of each loss after each step. The host then waits until the
    device has finished, and the device for the host to queue the next step. Here the values are
    read together, in the steps in which :class:`mmengine.hooks.LoggerHook` logs and at the end of
    an epoch. The message hub, and with it every log line, holds the same values as before.
    """

    def before_train(self, runner: Runner) -> None:
        """Note how often the logger logs."""
        super().before_train(runner)
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = min(intervals, default=1)
        self._waiting: dict[str, list[Tensor]] = {}

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the values of this step, and read all that are waiting where the logger logs."""
        for key, value in (outputs or {}).items():
            self._waiting.setdefault(key, []).append(torch.as_tensor(value).detach())
        logs = self.every_n_inner_iters(batch_idx, self._interval)
        if logs or self.end_of_epoch(runner.train_dataloader, batch_idx):
            self._read(runner)

    def after_train(self, runner: Runner) -> None:
        """Read what an iteration-based loop has left."""
        self._read(runner)

    def _read(self, runner: Runner) -> None:
        for key, values in self._waiting.items():
            for value in torch.stack(values).tolist():
                runner.message_hub.update_scalar(f'train/{key}', value)
        self._waiting.clear()
