"""Ctrl-C, SIGTERM and SIGUSR1 save the run and end it, and it goes on as if nothing had been."""

import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.text import Text
from torch import Tensor

from mmslip.engine.checkpointing.find import newest_checkpoint
from mmslip.engine.checkpointing.stop import resume_command
from mmslip.engine.checkpointing.storage import wait_for_writes
from mmslip.engine.hooks.progress import _Console
from mmslip.shipped import find_config
from tests.crashing import (
    EPOCH_LOOP,
    ITER_LOOP,
    Regression,
    assert_equal,
    assert_same_run,
    finish,
    make_runner,
    start,
    trace,
)
from tests.distributed import pool
from tests.scripts import environment, lines_of
from tests.test_training import small_config

ROOT = Path(__file__).parents[2]
NEVER = 1000  # steps between checkpoints, of which these tests want one only


def send_at(step: int, number: int = signal.SIGTERM) -> Callable:
    """Send a signal to this process in a step."""

    def act(runner: Runner) -> None:
        if runner.iter == step:
            os.kill(os.getpid(), number)

    return act


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    """The usual handlers: a training that another test had fail leaves its own behind."""
    usual = dict.fromkeys((signal.SIGTERM, signal.SIGUSR1), signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    for number, handler in usual.items():
        signal.signal(number, handler)
    yield
    for number, handler in usual.items():
        signal.signal(number, handler)


@pytest.fixture(scope='module', params=[EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])
def straight(request, tmp_path_factory) -> tuple[dict, Path]:
    """A loop, and the folder of an uninterrupted run of it."""
    folder = tmp_path_factory.mktemp('straight')
    make_runner(folder, request.param).train()
    return request.param, folder


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.mark.parametrize(
    ('number', 'step', 'status'),
    [
        (signal.SIGTERM, 6, 0),
        (signal.SIGUSR1, 9, 0),
        (signal.SIGINT, 0, 130),
        (signal.SIGINT, 6, 130),
        (signal.SIGINT, 9, 130),
    ],
)
def test_the_step_is_saved_and_the_run_goes_on(straight, tmp_path, number, step, status):
    """In the first step, in the middle of an epoch, and in its last step."""
    loop, expected = straight
    handlers = [signal.getsignal(one) for one in SIGNALS]
    runner = make_runner(tmp_path, loop, act=send_at(step, number), interval=NEVER)
    with pytest.raises(SystemExit) as ended:
        runner.train()
    assert ended.value.code == status
    assert [signal.getsignal(one) for one in SIGNALS] == handlers
    assert newest_checkpoint([tmp_path]).name == 'stopped.pth'
    assert torch.load(tmp_path / 'stopped.pth')['meta']['iter'] == step + 1
    assert [done for done, _ in trace(tmp_path)] == list(range(step + 1))
    make_runner(tmp_path, loop, resume=True, interval=NEVER).train()
    assert_same_run(tmp_path, expected)
    assert [signal.getsignal(one) for one in SIGNALS] == handlers


def test_an_accumulated_step_is_finished_first(tmp_path):
    optimizer = dict(type='AdamW', lr=0.05)
    options = dict(interval=NEVER, optim_wrapper=dict(optimizer=optimizer, accumulative_counts=3))
    make_runner(tmp_path / 'straight', **options).train()
    runner = make_runner(tmp_path / 'run', act=send_at(6), **options)
    with pytest.raises(SystemExit):
        runner.train()
    assert torch.load(tmp_path / 'run' / 'stopped.pth')['meta']['iter'] == 9
    make_runner(tmp_path / 'run', resume=True, **options).train()
    assert_same_run(tmp_path / 'run', tmp_path / 'straight')


@pytest.mark.parametrize(('name', 'status'), [('TERM', 0), ('INT', 130)])
def test_a_signal_to_the_whole_job_spares_the_workers(straight, tmp_path, name, status):
    """Slurm and a terminal signal every process; a worker that died would take the run along."""
    loop, expected = straight

    def signal_job(runner: Runner) -> None:
        if runner.iter == 6:
            # From another process, since a worker does obey its owner.
            command = ['kill', f'-{name}', '--', f'-{os.getpgid(0)}']
            subprocess.run(command, check=True, start_new_session=True)
            time.sleep(0.5)  # for workers to die in

    data = dict(num_workers=2, persistent_workers=True)
    process = start(tmp_path, loop=loop, act=signal_job, interval=NEVER, data=data)
    process.join(60)
    assert process.exitcode == status
    assert torch.load(tmp_path / 'stopped.pth')['meta']['iter'] == 7
    finish(tmp_path, loop=loop, resume=True, interval=NEVER)
    assert_same_run(tmp_path, expected)


@pytest.mark.parametrize('again', [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_at_once(tmp_path, again):
    """While the step goes on; torchrun sends SIGTERM for its second Ctrl-C."""

    def twice(runner: Runner) -> None:
        if runner.iter == 3:
            wait_for_writes()
            os.kill(os.getpid(), signal.SIGINT)
            (tmp_path / 'once').touch()
            os.kill(os.getpid(), again)
            (tmp_path / 'twice').touch()

    process = start(tmp_path, act=twice, interval=2)
    process.join(60)
    assert process.exitcode == -again
    assert [(tmp_path / name).exists() for name in ('once', 'twice', 'stopped.pth')] == [1, 0, 0]
    # What was saved before is whole, and the run goes on from there.
    assert newest_checkpoint([tmp_path]).name == 'iter_2.pth'
    finish(tmp_path, resume=True, interval=NEVER)


def test_one_that_comes_while_a_checkpoint_is_saved(straight, tmp_path):
    loop, expected = straight

    sent = []

    class InSave(Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
            if checkpoint['meta']['iter'] == 6 and not sent:
                sent.append(True)
                os.kill(os.getpid(), signal.SIGINT)

    runner = make_runner(tmp_path, loop, interval=6, hooks=(InSave(),))
    with pytest.raises(SystemExit):
        runner.train()
    first, second = (torch.load(tmp_path / name) for name in ('iter_6.pth', 'stopped.pth'))
    assert_equal(first['state_dict'], second['state_dict'])
    make_runner(tmp_path, loop, resume=True, interval=NEVER).train()
    assert_same_run(tmp_path, expected)


def test_after_an_exception_signals_are_those_of_others_again(tmp_path):
    """A notebook goes on after a failed training, and its interrupts are its own."""

    def fail(runner: Runner) -> None:
        raise ZeroDivisionError

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        make_runner(tmp_path, act=fail, interval=NEVER).train()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler


class Evaluated(Regression):
    """Has its validation send the signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.number, self.sent = number, False

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> object:
        if mode == 'predict':
            if not self.sent:
                os.kill(os.getpid(), self.number)
            self.sent = True
            return [number]
        return super().forward(inputs, number, mode)


class Count(BaseMetric):
    """How many batches there were."""

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list) -> dict[str, int]:
        return dict(batches=len(results))


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_validation_is_finished_first(straight, tmp_path, number, status):
    loop, expected = straight
    seen = []

    class Seen(Count):
        def compute_metrics(self, results: list) -> dict[str, int]:
            seen.append(len(results))
            return super().compute_metrics(results)

    samples = [dict(inputs=torch.ones(2), number=torch.ones(1)) for _ in range(6)]
    interval = 1 if loop['by_epoch'] else 5
    runner = make_runner(
        tmp_path,
        {**loop, 'val_interval': interval},
        interval=NEVER,
        model=Evaluated(number),
        val_dataloader=dict(
            dataset=samples, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_evaluator=[Seen()],
        val_cfg=dict(),
    )
    with pytest.raises(SystemExit) as ended:
        runner.train()
    assert ended.value.code == status
    assert seen == [3]
    meta = torch.load(tmp_path / 'stopped.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (1 if loop['by_epoch'] else 0, 5)
    make_runner(tmp_path, loop, resume=True, interval=NEVER).train()
    assert_same_run(tmp_path, expected)


def _leave(rank: int, world_size: int, folder: str, number: signal.Signals) -> list[object]:
    """One process gets the signal."""
    act = send_at(4, number) if rank == 1 else None
    runner = make_runner(Path(folder, str(rank)), ITER_LOOP, act=act, interval=NEVER)
    try:
        runner.train()
    except SystemExit as ended:
        path = Path(folder, str(rank), 'stopped.pth')
        return [ended.code, runner.iter, path.exists()]
    return [None]


@pytest.mark.dist
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_processes_leave_together(tmp_path: Path, number: signal.Signals, status: int) -> None:
    first, second = pool.run(_leave, 2, str(tmp_path), number)
    # The news of step 4 is heard after step 5; the first process has saved.
    assert first == [status, 5, True]
    assert second == [status, 5, False]


def press(command: list[str], times: int, lines: list[str]) -> int:
    """Start a training in a group of its own, press Ctrl-C in its 9th step; returns the status."""
    with lines_of(command, env=environment(OMP_NUM_THREADS='1'), cwd=ROOT) as process:
        for line in process.stdout:
            lines.append(line)
            if times and re.search(r'Epoch\(train\) +\[3\]\[1/4\]', line):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                times -= 1
    return process.returncode


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize('processes', [1, 2])
def test_the_printed_command_goes_on(tmp_path: Path, monkeypatch, processes: int) -> None:
    """Ctrl-C at a terminal, with data workers, by `python -m mmslip` and by torchrun."""
    work_dir, config = tmp_path / 'run', tmp_path / 'config.py'
    cfg = small_config(work_dir, **{'train_dataloader.num_workers': 2, 'train_cfg.max_epochs': 20})
    cfg.train_dataloader.batch_size = 8 // processes
    cfg.dump(config)
    arguments = ['-m', 'mmslip', 'train', str(config), '--cfg-options', 'log_level=INFO']
    if processes > 1:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            monkeypatch.setenv('PET_MASTER_PORT', str(free.getsockname()[1]))
        start = ['torchrun', f'--nproc_per_node={processes}']
    else:
        start = [sys.executable]
    lines: list[str] = []
    status = press([*start, *arguments], 1, lines)
    assert status == 130 if processes == 1 else status != 0, ''.join(lines)
    text = ''.join(lines)
    step = torch.load(work_dir / 'stopped.pth', weights_only=True)['meta']['iter']
    assert 9 <= step < 40
    assert 'Ctrl-C: saving after this step.' in text
    command = shlex.split(re.search(r'Go on with: (.*)', text)[1])
    assert command == [*start, *arguments, '--work-dir', str(work_dir), '--resume']
    lines.clear()
    assert press(command, 0, lines) == 0, ''.join(lines)
    assert f'resumed epoch: {step // 4}, iter: {step}' in ''.join(lines)
    assert torch.load(work_dir / 'epoch_20.pth', weights_only=True)['meta']['iter'] == 80


def test_the_command_is_the_one_of_the_run(monkeypatch, tmp_path: Path) -> None:
    config = tmp_path / 'my config.py'
    config.write_text('')
    runner = SimpleNamespace(
        cfg=SimpleNamespace(filename=str(config)), work_dir='runs/a', distributed=False
    )
    monkeypatch.setattr(sys, 'orig_argv', ['python3', 'tools/train.py'])

    def told(*argv: str) -> str | None:
        monkeypatch.setattr(sys, 'argv', [str(value) for value in argv])
        return resume_command(runner)

    end = "'--work-dir runs/a --resume"
    assert told('tools/train.py', config, '--amp') == (
        f"python3 tools/train.py '{config}' --amp --work-dir runs/a --resume"
    )
    assert told('/bin/mmslip', 'train', config, '--resume', 'old.pth', '--work-dir=b') == (
        f"mmslip train '{config}' --work-dir runs/a --resume"
    )
    assert told('/lib/mmslip/__main__.py', '--debug', 'train', config) == (
        f"python3 -m mmslip --debug train '{config}' --work-dir runs/a --resume"
    )
    monkeypatch.chdir(tmp_path)
    assert told('tools/train.py', './my config.py').endswith(f'my config.py{end[0]} {end[1:]}')
    assert told('notebook.py') is None
    runner.distributed = True
    for name, value in dict(GROUP_WORLD_SIZE='1', LOCAL_WORLD_SIZE='8').items():
        monkeypatch.setenv(name, value)
    assert told('tools/train.py', config, '--launcher', 'pytorch') == (
        f"torchrun --nproc_per_node=8 tools/train.py '{config}' --launcher pytorch "
        '--work-dir runs/a --resume'
    )
    assert told('/lib/mmslip/__main__.py', 'train', config) == (
        f"torchrun --nproc_per_node=8 -m mmslip train '{config}' --work-dir runs/a --resume"
    )
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')
    assert told('tools/train.py', config, '--launcher', 'pytorch') is None
    # A config that comes with mmslip goes by its name.
    runner.distributed = False
    runner.cfg.filename = str(find_config('slip_tiny_emoji'))
    command = 'mmslip train slip_tiny_emoji --work-dir runs/a --resume'
    assert told('/bin/mmslip', 'train', 'slip_tiny_emoji') == command
    assert told('/bin/mmslip', 'train', 'slip_vit-tiny_emoji') is None


def test_torchrun_survives_what_its_processes_hear(tmp_path: Path) -> None:
    stub = tmp_path / 'torchrun'
    stub.write_text('#!/usr/bin/env bash\nkill -USR1 $$\nsleep 0.1\necho alive\n')
    stub.chmod(0o755)
    launcher = Path(__file__).parents[2] / 'tools' / 'dist_train.sh'
    path = f'{tmp_path}:{os.environ["PATH"]}'
    command = [launcher, 'config.py', '1']
    found = subprocess.run(command, env=dict(os.environ, PATH=path), capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ('alive\n', 0)


def test_the_command_is_one_line_of_a_narrow_terminal() -> None:
    """Where the live line is drawn, what is logged goes through its console."""
    screen = io.StringIO()
    command = 'mmslip train mine.py --work-dir ' + 'deep/' * 20 + ' --resume'
    _Console(file=screen, width=40, force_terminal=True).print(Text(f'Go on with: {command}'))
    assert screen.getvalue() == f'Go on with: {command}\n'
