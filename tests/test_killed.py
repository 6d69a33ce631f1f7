"""SIGKILL at any moment, saving included, changes nothing but the time that a run takes."""

import os
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import mmengine.hooks.checkpoint_hook
import numpy as np
import pytest

from mmslip.engine.checkpointing.find import whole_checkpoints
from tests import killing
from tests.crashing import EPOCH_LOOP, ITER_LOOP, assert_same_run, finish, kill, start

BALLAST = 0.5  # million parameters: a checkpoint of 10 MB, so that half of the time goes to saving


@pytest.fixture(scope='module')
def straight(tmp_path_factory) -> Callable[[dict], tuple[Path, float]]:
    """Gives the folder of an uninterrupted run of a loop, and its time in seconds."""

    @cache
    def run(by_epoch: bool) -> tuple[Path, float]:
        folder = tmp_path_factory.mktemp('straight')
        begin = time.perf_counter()
        finish(folder, loop=EPOCH_LOOP if by_epoch else ITER_LOOP, ballast=BALLAST)
        return folder, time.perf_counter() - begin

    return lambda loop: run(loop['by_epoch'])


def kill_once(straight: Callable, loop: dict, folder: Path, moment: float) -> bool:
    """Kill a run, resume it, compare; returns whether a file was being written."""
    expected, duration = straight(loop)
    process = start(folder, loop=loop, ballast=BALLAST)
    process.join(moment * duration)
    process.kill()
    process.join()
    saving = any(folder.glob('.*.part*'))
    finish(folder, loop=loop, ballast=BALLAST, resume=True)
    assert_same_run(folder, expected)
    assert not any(folder.glob('.*.part*'))
    return saving


@pytest.mark.parametrize(('loop', 'moment'), [(EPOCH_LOOP, 0.5), (ITER_LOOP, 0.8)])
def test_killed_once(straight, tmp_path, loop, moment):
    kill_once(straight, loop, tmp_path / 'run', moment)


@pytest.mark.slow
@pytest.mark.skipif('MMSLIP_SLOW_TESTS' not in os.environ, reason='takes minutes')
@pytest.mark.parametrize('loop', [EPOCH_LOOP, ITER_LOOP], ids=['epoch', 'iteration'])
def test_killed_at_twenty_random_moments(straight, tmp_path, loop):
    moments = np.random.default_rng(0).uniform(0.1, 1, 20)
    saving = [
        kill_once(straight, loop, tmp_path / str(number), moment)
        for number, moment in enumerate(moments)
    ]
    print(f'{sum(saving)} of {len(saving)} kills came while a file was being written')
    assert any(saving)


def at_call(number: int, function: Callable, before: Callable | None = None) -> Callable:
    """A stand-in for a function that kills the process at one of its calls."""
    calls = []

    def stand_in(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            if before is not None:
                before(*args, **kwargs)
            kill()
        return function(*args, **kwargs)

    return stand_in


def half_written(number: int) -> None:
    def write_half(path, content):
        write(path, content[: len(content) // 2])

    write = Path.write_bytes
    Path.write_bytes = at_call(number, write, write_half)


def before_fsync(number: int) -> None:
    os.fsync = at_call(2 * number - 1, os.fsync)  # of file and folder in turn


def before_replace(number: int) -> None:
    os.replace = at_call(number, os.replace)


def after_replace(number: int) -> None:
    os.replace = at_call(number, os.replace, os.replace)


def before_folder_fsync(number: int) -> None:
    os.fsync = at_call(2 * number, os.fsync)


def before_removal(number: int) -> None:
    # Once for each file, and then for what the second file by step makes outdated.
    Path.unlink = at_call(3, Path.unlink)


def while_noting(number: int) -> None:
    """When ``last_checkpoint`` has been emptied and nothing is written into it yet."""
    mmengine.hooks.checkpoint_hook.open = at_call(number, open, open)


LASTING = (after_replace, before_folder_fsync)  # the file has its name already
STAGES = [half_written, before_fsync, before_replace, *LASTING, before_removal, while_noting]


@pytest.mark.parametrize(
    ('stage', 'number'),
    # At the first file, when there is no other, and at a later one.
    [(half_written, 1), (after_replace, 1), *((stage, 4) for stage in STAGES)],
    ids=lambda value: getattr(value, '__name__', str(value)),
)
def test_killed_within_saving(straight, tmp_path, stage, number):
    process = start(tmp_path, ballast=BALLAST, prepare=lambda: stage(number))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = [path.name for path in whole_checkpoints([tmp_path])]
    if stage is before_removal:  # which comes at the second file by step
        assert left == ['iter_4.pth', 'iter_2.pth']
    elif stage is not while_noting:  # which runs beside the writing of the file
        # The files are those of steps 2 and 4, of epoch 1 (step 5), of step 6.
        before, killed = ([], 'iter_2.pth') if number == 1 else (['epoch_1.pth'], 'iter_6.pth')
        assert left[:1] == ([killed] if stage in LASTING else before)
    finish(tmp_path, ballast=BALLAST, resume=True)
    assert_same_run(tmp_path, straight(EPOCH_LOOP)[0])


def check_kinds(folder: Path, kind: str, sizes: tuple[int, ...]) -> None:
    """Kill a run until it has ended, and compare it with one that nobody killed."""
    killing.write_data(folder / 'data')
    by_epoch = kind != 'stream'
    draws = np.random.default_rng(len(kind))
    killed, whole = folder / 'killed', folder / 'whole'
    kills = killing.kill_often(killed, folder / 'data', kind, by_epoch, sizes, draws)
    killing.straight(whole, folder / 'data', kind, by_epoch, sizes[0])
    print(f'{kills} kills')
    killing.assert_each_sample_once(killed)
    assert killing.visited(killed) == killing.visited(whole)
    if len(sizes) == 1:
        assert killing.losses(killed) == killing.losses(whole)


@pytest.mark.slow
@pytest.mark.skipif('MMSLIP_SLOW_TESTS' not in os.environ, reason='takes minutes')
@pytest.mark.parametrize('sizes', [(2,), (1, 2, 4)])
@pytest.mark.parametrize('kind', killing.KINDS)
def test_killed_over_all_kinds_of_data(tmp_path: Path, kind: str, sizes: tuple[int, ...]) -> None:
    check_kinds(tmp_path, kind, sizes)


SLOW = pytest.mark.skipif('MMSLIP_SLOW_TESTS' not in os.environ, reason='takes half a minute')


@pytest.mark.parametrize('kind', ['stream', pytest.param('table', marks=SLOW)])
def test_one_two_four_and_one_process_share_an_epoch(tmp_path: Path, kind: str) -> None:
    """Each is killed after some steps; the last one goes on to the end."""
    killing.write_data(tmp_path / 'data')
    run = tmp_path / 'run'
    for number, (world_size, kill_after) in enumerate([(1, 2), (2, 5), (4, 9), (1, None)]):
        processes = killing.start(
            run, tmp_path / 'data', kind, kind == 'table', world_size, number, kill_after, epochs=2
        )
        for process in processes:
            process.join()
        expected = 0 if kill_after is None else -signal.SIGKILL
        assert {process.exitcode for process in processes} == {expected}
    killing.assert_each_sample_once(run, epochs=2)
