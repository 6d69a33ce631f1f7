"""Saving and leaving when the cluster, or Ctrl-C, asks for it."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed as dist
from torch.utils.data import DataLoader

from mmslip.engine.checkpointing.stop import resume_command, save_before_stopping
from mmslip.registry import HOOKS

__all__ = ['PreemptionHook']

# Windows has no SIGUSR1, and macOS no way to tell who sent a signal.
_NAMES = ('SIGINT', 'SIGTERM', 'SIGUSR1')
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
_KNOWS_SENDER = hasattr(signal, 'sigwaitinfo')


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On Ctrl-C, SIGTERM or SIGUSR1, finish the step, save ``stopped.pth``, and exit.

    Slurm and other schedulers send SIGTERM or SIGUSR1 before they kill: the status is 0. Ctrl-C
    (SIGINT) ends with status 130, as shells expect, and a second one, or SIGTERM, which torchrun
    makes of it, ends at once. The log says how to go on.

    One process that gets the signal is enough: all leave after the same step. That is this step of
    a single process, and the next step of several, which exchange the news over the CPU while the
    step runs, so that no GPU waits; with ``accumulative_counts``, the end of the accumulated step.
    A validation that has begun is finished first, since its score would be lost.

    Signals that reach the whole job would kill the data workers, and with them the run before it
    can save; workers are therefore made to ignore SIGINT and SIGUSR1, and to obey SIGTERM from
    their own process only.
    """

    # After all that changes the state in `after_train_iter`, CheckpointHook included.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal = 0  # sent to this process
        self._told = 0  # sent to any process, as far as all of them know
        self._loop: CodeType | None = None
        self._old: dict[int, object] = {}
        self._news: tuple[torch.Tensor, dist.Work] | None = None
        self._group: dist.ProcessGroup | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen, and protect the data workers to come."""
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning('Not in the main thread: signals will not save a checkpoint.')
        else:
            self._loop = type(runner.train_loop).run.__code__
            self._old = {number: signal.signal(number, self._note) for number in _SIGNALS}
        if get_world_size() > 1 and self._group is None:
            self._group = dist.new_group(backend='gloo')
        loops = [runner.train_loop, runner.val_loop]
        for loader in (loop.dataloader for loop in loops if loop is not None):
            _protect_workers(loader)

    def _note(self, number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not self._loop:
            frame = frame.f_back
        if frame is None:  # an exception has ended the training, and this process goes on without
            self._restore()
            os.kill(os.getpid(), number)
            return
        self._signal = number
        if number == signal.SIGINT:
            # The default action needs no Python, which may be waiting for another process.
            for again in (signal.SIGINT, signal.SIGTERM):
                signal.signal(again, signal.SIG_DFL)
            if is_main_process():
                os.write(2, b'\nCtrl-C: saving after this step. Once more ends at once, unsaved.\n')

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Leave if this or another process was told to."""
        if self._group is None:
            self._told = self._signal
        else:
            # What was sent a step ago has arrived, and is the same everywhere.
            self._told = self._told or self._receive()
            self._send()
        # Accumulated gradients are not saved: this waits until the optimiser has used them.
        if self._told and runner.optim_wrapper.should_update():
            self._leave(runner, in_step=True)

    def after_val(self, runner: Runner) -> None:
        """Leave if the signal came during validation."""
        if self._group is None:
            self._told = self._signal
        else:
            self._told = self._told or self._receive()
            self._send()
            news = self._receive()  # nothing else is under way, so it is waited for
            self._told = self._told or news
        if self._told:
            self._leave(runner, in_step=False)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        if self._group is not None:
            self._receive()
        self._restore()

    def _send(self) -> None:
        number = torch.tensor([self._signal])
        work = dist.all_reduce(number, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._news = number, work

    def _receive(self) -> int:
        if self._news is None:
            return 0
        number, work = self._news
        self._news = None
        work.wait()
        return int(number.item())

    def _leave(self, runner: Runner, in_step: bool) -> None:
        name = signal.Signals(self._told).name
        runner.logger.warning(f'{name}: saving after step {runner.iter + in_step} ...')
        path = save_before_stopping(runner, in_step)
        command = resume_command(runner) or 'the command of this run and --resume'
        runner.logger.warning(f'Saved {path}. Go on with: {command}')
        self._restore()
        raise SystemExit(128 + signal.SIGINT if self._told == signal.SIGINT else 0)

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}


def _protect_workers(loader: DataLoader) -> None:
    if loader.num_workers and not isinstance(loader.worker_init_fn, _ProtectedStart):
        loader.worker_init_fn = _ProtectedStart(loader.worker_init_fn, os.getpid())


class _ProtectedStart:
    """Starts a data worker that heeds no signal of a job but SIGTERM from one process."""

    def __init__(self, start: Callable[[int], None] | None, owner: int) -> None:
        self.start, self.owner = start, owner

    def __call__(self, worker: int) -> None:
        # A worker may have been forked with the handlers of its owner.
        for number in _SIGNALS:
            if number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
        if _KNOWS_SENDER:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=partial(_obey, self.owner), daemon=True).start()
        if self.start is not None:
            self.start(worker)


def _obey(owner: int) -> None:
    """End this process when its owner says so; others are not heard."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != owner:
        pass
    os._exit(0)
