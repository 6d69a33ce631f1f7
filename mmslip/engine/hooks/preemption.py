"""Saving and leaving when the cluster asks for it."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed as dist
from torch.utils.data import DataLoader

from mmslip.engine.stop import save_before_stopping
from mmslip.registry import HOOKS

__all__ = ['PreemptionHook']

# Windows has no SIGUSR1, and macOS no way to tell who sent a signal.
_SIGNALS = [getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name)]
_KNOWS_SENDER = hasattr(signal, 'sigwaitinfo')


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1, finish the step, save ``stopped.pth``, and exit with status 0.

    Slurm and other schedulers send these before they kill. One process that gets the signal is
    enough: all leave after the same step. That is this step of a single process, and the next step
    of several, which exchange the news over the CPU while the step runs, so that no GPU waits; with
    ``accumulative_counts``, the end of the accumulated step. A validation that has begun is
    finished first, since its score would be lost.

    Signals that reach the whole job would kill the data workers, and with them the run before it
    can save; workers are therefore made to obey SIGTERM from their own process only.
    """

    # After all that changes the state in `after_train_iter`, CheckpointHook included.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal: int | None = None
        self._told = False
        self._old: dict[int, object] = {}
        self._news: tuple[torch.Tensor, dist.Work] | None = None
        self._group: dist.ProcessGroup | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen, and protect the data workers to come."""
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning('Not in the main thread: signals will not save a checkpoint.')
        else:
            self._old = {number: signal.signal(number, self._note) for number in _SIGNALS}
        if get_world_size() > 1 and self._group is None:
            self._group = dist.new_group(backend='gloo')
        loops = [runner.train_loop, runner.val_loop]
        for loader in (loop.dataloader for loop in loops if loop is not None):
            _protect_workers(loader)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Leave if this or another process was told to."""
        if self._group is None:
            self._told = self._signal is not None
        else:
            # What was sent a step ago has arrived, and is the same everywhere.
            self._told |= self._receive()
            self._send()
        # Accumulated gradients are not saved: this waits until the optimiser has used them.
        if self._told and runner.optim_wrapper.should_update():
            self._leave(runner, in_step=True)

    def after_val(self, runner: Runner) -> None:
        """Leave if the signal came during validation."""
        if self._group is None:
            self._told = self._signal is not None
        else:
            self._told |= self._receive()
            self._send()
            self._told |= self._receive()  # nothing else is under way: the news is waited for
        if self._told:
            self._leave(runner, in_step=False)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        if self._group is not None:
            self._receive()
        self._restore()

    def _send(self) -> None:
        flag = torch.tensor([int(self._signal is not None)])
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._news = flag, work

    def _receive(self) -> bool:
        if self._news is None:
            return False
        flag, work = self._news
        self._news = None
        work.wait()
        return bool(flag.item())

    def _leave(self, runner: Runner, in_step: bool) -> None:
        name = 'another process' if self._signal is None else signal.Signals(self._signal).name
        runner.logger.warning(f'{name}: saving after step {runner.iter + in_step} ...')
        path = save_before_stopping(runner, in_step)
        runner.logger.warning(f'Saved {path}; go on with --resume.')
        self._restore()
        raise SystemExit(0)

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}


def _protect_workers(loader: DataLoader) -> None:
    protected = isinstance(loader.worker_init_fn, _ProtectedStart)
    if loader.num_workers and _KNOWS_SENDER and not protected:
        loader.worker_init_fn = _ProtectedStart(loader.worker_init_fn, os.getpid())


class _ProtectedStart:
    """Starts a data worker that obeys SIGTERM from one process only."""

    def __init__(self, start: Callable[[int], None] | None, owner: int) -> None:
        self.start, self.owner = start, owner

    def __call__(self, worker: int) -> None:
        # A worker may have been forked with the handlers of its owner; USR1 says nothing to it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=partial(_obey, self.owner), daemon=True).start()
        if self.start is not None:
            self.start(worker)


def _obey(owner: int) -> None:
    """End this process when its owner says so; others are not heard."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != owner:
        pass
    os._exit(0)
