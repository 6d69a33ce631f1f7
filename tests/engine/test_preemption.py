"""SIGTERM and SIGUSR1 save the run and end it, and it goes on as if nothing had been."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from torch import Tensor

from mmslip.engine.checkpoint import newest_checkpoint
from tests.crashing import (
    EPOCH_LOOP,
    ITER_LOOP,
    Regression,
    assert_same_run,
    finish,
    make_runner,
    start,
    trace,
)
from tests.distributed import pool

NEVER = 1000  # steps between checkpoints, of which these tests want one only


def send_at(step: int, number: int = signal.SIGTERM) -> Callable:
    """Send a signal to this process in a step."""

    def act(runner: Runner) -> None:
        if runner.iter == step:
            os.kill(os.getpid(), number)

    return act


@pytest.fixture(scope='module', params=[EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])
def straight(request, tmp_path_factory) -> tuple[dict, Path]:
    """A loop, and the folder of an uninterrupted run of it."""
    folder = tmp_path_factory.mktemp('straight')
    make_runner(folder, request.param).train()
    return request.param, folder


@pytest.mark.parametrize(
    ('number', 'step'), [(signal.SIGTERM, 6), (signal.SIGUSR1, 9)], ids=['TERM', 'USR1']
)
def test_the_step_is_saved_and_the_run_goes_on(straight, tmp_path, number, step):
    """In the middle of an epoch, and in its last step."""
    loop, expected = straight
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)]
    runner = make_runner(tmp_path, loop, act=send_at(step, number), interval=NEVER)
    with pytest.raises(SystemExit) as ended:
        runner.train()
    assert ended.value.code == 0
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert newest_checkpoint([tmp_path]).name == 'stopped.pth'
    assert torch.load(tmp_path / 'stopped.pth')['meta']['iter'] == step + 1
    assert [done for done, _ in trace(tmp_path)] == list(range(step + 1))
    make_runner(tmp_path, loop, resume=True, interval=NEVER).train()
    assert_same_run(tmp_path, expected)
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)] == handlers


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


def test_a_signal_to_the_whole_job_spares_the_workers(straight, tmp_path):
    """Slurm signals every process; a worker that dies would take the run along, unsaved."""
    loop, expected = straight

    def signal_job(runner: Runner) -> None:
        if runner.iter == 6:
            # From another process, since a worker does obey its owner.
            command = ['kill', '-TERM', '--', f'-{os.getpgid(0)}']
            subprocess.run(command, check=True, start_new_session=True)
            time.sleep(0.5)  # for workers to die in

    data = dict(num_workers=2, persistent_workers=True)
    process = start(tmp_path, loop=loop, act=signal_job, interval=NEVER, data=data)
    process.join(60)
    assert process.exitcode == 0
    assert torch.load(tmp_path / 'stopped.pth')['meta']['iter'] == 7
    finish(tmp_path, loop=loop, resume=True, interval=NEVER)
    assert_same_run(tmp_path, expected)


class Evaluated(Regression):
    """Has its validation send the signal."""

    def forward(self, inputs: Tensor, number: Tensor, mode: str = 'loss') -> object:
        if mode == 'predict':
            os.kill(os.getpid(), signal.SIGTERM)
            return [number]
        return super().forward(inputs, number, mode)


class Count(BaseMetric):
    """How many batches there were."""

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list) -> dict[str, int]:
        return dict(batches=len(results))


def test_a_validation_is_finished_first(straight, tmp_path):
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
        model=Evaluated(),
        val_dataloader=dict(
            dataset=samples, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_evaluator=[Seen()],
        val_cfg=dict(),
    )
    with pytest.raises(SystemExit) as ended:
        runner.train()
    assert ended.value.code == 0
    assert seen == [3]
    meta = torch.load(tmp_path / 'stopped.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (1 if loop['by_epoch'] else 0, 5)
    make_runner(tmp_path, loop, resume=True, interval=NEVER).train()
    assert_same_run(tmp_path, expected)


def _leave(rank: int, world_size: int, folder: str) -> list[object]:
    """One process gets the signal."""
    act = send_at(4) if rank == 1 else None
    runner = make_runner(Path(folder, str(rank)), ITER_LOOP, act=act, interval=NEVER)
    try:
        runner.train()
    except SystemExit as ended:
        path = Path(folder, str(rank), 'stopped.pth')
        return [ended.code, runner.iter, path.exists()]
    return [None]


@pytest.mark.dist
def test_processes_leave_together(tmp_path: Path) -> None:
    first, second = pool.run(_leave, 2, str(tmp_path))
    # The news of step 4 is heard after step 5; the first process has saved.
    assert first == [0, 5, True]
    assert second == [0, 5, False]


def test_torchrun_survives_what_its_processes_hear(tmp_path: Path) -> None:
    stub = tmp_path / 'torchrun'
    stub.write_text('#!/usr/bin/env bash\nkill -USR1 $$\nsleep 0.1\necho alive\n')
    stub.chmod(0o755)
    launcher = Path(__file__).parents[2] / 'tools' / 'dist_train.sh'
    path = f'{tmp_path}:{os.environ["PATH"]}'
    command = [launcher, 'config.py', '1']
    found = subprocess.run(command, env=dict(os.environ, PATH=path), capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ('alive\n', 0)
