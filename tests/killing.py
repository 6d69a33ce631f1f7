"""Runs over all kinds of data, killed at random moments and resumed with other process counts.

``python -m tests.killing --kills 200`` kills as often and prints what came of it.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle, pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import torch
from mmengine.hooks import Hook
from pyarrow import parquet
from torch import distributed as dist
from torch.utils.data import Dataset

from mmslip.datasets import CaptionTable, ParquetDataset, ShardDataset, StreamDataset, TableDataset
from tests.crashing import kill, make_runner
from tests.datasets.test_shards import pack

SAMPLES, STEP, EPOCHS = 48, 8, 24  # samples of a step over all processes
KINDS = ('table', 'shards', 'parquet', 'stream')


def write_data(folder: Path) -> None:
    """The same samples as a table, as shards of different length, and as Parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(SAMPLES):
        image = np.full((8, 8, 3), 5 * number, np.uint8)
        images.append(cv2.imencode('.png', image)[1].tobytes())
        (folder / f'{number}.png').write_bytes(images[-1])
    rows = [(f'{number}.png', [str(number)]) for number in range(SAMPLES)]
    CaptionTable.write(folder / 'train.table', rows)
    bounds = [0, 5, 17, 26, 40, SAMPLES]
    for part, (begin, end) in enumerate(pairwise(bounds)):
        members = []
        for number in range(begin, end):
            members += [(f'{number}.png', images[number]), (f'{number}.txt', b'%d' % number)]
        pack(folder / f'{part}.tar', members)
        captions = [str(number) for number in range(begin, end)]
        table = pyarrow.table(dict(image=images[begin:end], caption=captions))
        parquet.write_table(table, folder / f'{part}.parquet', row_group_size=4)


def identify(info: dict) -> dict:
    """A pipeline: the number of the sample, and what was drawn at the visit."""
    text = info['text'] if isinstance(info['text'], str) else info['text'][0]
    return dict(inputs=torch.tensor([int(text) / SAMPLES, np.random.rand()]), number=int(text))


def open_data(kind: str, folder: Path) -> Dataset:
    options = dict(pipeline=[identify])
    root = dict(data_root=str(folder))
    if kind == 'table':
        return TableDataset('train.table', **root, data_prefix=dict(img_path='.'), **options)
    if kind == 'shards':
        return ShardDataset('*.tar', **root, **options)
    if kind == 'parquet':
        return ParquetDataset('*.parquet', **root, **options)
    shards = f'{folder}/{{0..4}}.tar'
    return StreamDataset(shards, length=SAMPLES, shuffle_buffer=10, **options)


class Visits(Hook):
    """Appends start, step and samples to a file of each process, and the loss to another."""

    priority = 85

    def __init__(self, start: int) -> None:
        self.start = start

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        # No process can end this step before all have begun it.
        samples = ' '.join(map(str, data_batch['number'].tolist()))
        self._append(runner, 'visits', f'{self.start} {runner.iter} {samples}')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._append(runner, 'losses', f'{runner.iter} {outputs["loss"].item().hex()}')

    def _append(self, runner, name: str, line: str) -> None:
        with open(Path(runner.work_dir, f'{name}-{runner.rank}'), 'a') as file:
            file.write(f'{line}\n')


class KillAfter(Hook):
    """Kills its process after a step, checkpoint included."""

    priority = 'LOWEST'

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.step:
            kill()


def start(
    folder: Path, data: Path, kind: str, by_epoch: bool, world_size: int, number: int,
    kill_after: int | None = None, epochs: int = EPOCHS,
) -> list:  # fmt: skip
    """Begin a run or go on with it; returns its processes."""
    store = Path(tempfile.mkdtemp(), 'store')

    def main(rank: int) -> None:
        torch.set_num_threads(1)
        options: dict = {}
        if world_size > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
            os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
            dist.init_process_group(
                'gloo', init_method=f'file://{store}', rank=rank, world_size=world_size
            )
            wrapper = dict(
                type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
            )
            options = dict(launcher='pytorch', cfg=dict(model_wrapper_cfg=wrapper))
        loader = dict(batch_size=STEP // world_size, dataset=open_data(kind, data), num_workers=0)
        if kind == 'stream':
            loader['sampler'] = None
            loader['drop_last'] = False
        loop = (
            dict(by_epoch=True, max_epochs=epochs)
            if by_epoch
            else dict(by_epoch=False, max_iters=epochs * SAMPLES // STEP)
        )
        hooks = [Visits(number), *([KillAfter(kill_after)] if kill_after else [])]
        runner = make_runner(
            folder, loop=loop, resume=number > 0, data=loader, hooks=tuple(hooks), **options
        )
        runner.train()

    processes = [
        multiprocessing.get_context('fork').Process(target=main, args=(rank,))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return processes


def end(processes: Sequence) -> bool:
    """Kill the processes; returns whether they had ended well before."""
    done = all(process.exitcode == 0 for process in processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    return done


def visited(folder: Path) -> list[list[int]]:
    """Samples of each step that counts: of what later starts did not do again."""
    steps: dict[int, dict[tuple[int, int], list[int]]] = defaultdict(dict)
    files = sorted(folder.glob('visits-*'), key=lambda path: int(path.name.partition('-')[2]))
    for rank, path in enumerate(files):
        for line in path.read_text().splitlines():
            start_number, step, *samples = map(int, line.split())
            steps[step][start_number, rank] = samples
    found = []
    for step in sorted(steps):
        last = max(number for number, _ in steps[step])
        parts = [steps[step][key] for key in sorted(steps[step]) if key[0] == last]
        found.append([sample for turn in zip(*parts, strict=True) for sample in turn])
    return found


def losses(folder: Path) -> dict[int, set[str]]:
    """Losses of the first process, by step, of however many times it was done."""
    found: dict[int, set[str]] = defaultdict(set)
    for line in (folder / 'losses-0').read_text().splitlines():
        step, loss = line.split()
        found[int(step)].add(loss)
    return dict(found)


def assert_each_sample_once(folder: Path, epochs: int = EPOCHS) -> None:
    """In every epoch, and as many in every step."""
    steps = visited(folder)
    per_epoch = SAMPLES // STEP
    assert len(steps) == epochs * per_epoch
    assert all(len(step) == STEP for step in steps)
    for epoch in range(epochs):
        seen = sum(steps[epoch * per_epoch : (epoch + 1) * per_epoch], [])  # noqa: RUF017
        assert sorted(seen) == list(range(SAMPLES)), f'epoch {epoch + 1}'


def kill_often(
    folder: Path, data: Path, kind: str, by_epoch: bool, sizes: Sequence[int],
    draws: np.random.Generator,
) -> int:  # fmt: skip
    """Kill and resume a run until it has ended; returns how often it was killed."""
    for number, world_size in enumerate(cycle(sizes)):
        began = time.time()
        processes = start(folder, data, kind, by_epoch, world_size, number)
        lines = folder / 'visits-0'
        size = lines.stat().st_size if lines.exists() else 0
        if draws.random() < 0.85:  # otherwise while it starts
            while not (lines.exists() and lines.stat().st_size > size):
                if any(process.exitcode is not None for process in processes):
                    break
                assert time.time() - began < 120, 'a run hangs'
                time.sleep(0.01)
        limit = time.time() + draws.uniform(0, 0.6)
        while time.time() < limit and any(process.exitcode is None for process in processes):
            time.sleep(0.005)
        codes = [process.exitcode for process in processes]
        assert not any(codes), f'a run failed: {codes}'
        if end(processes):
            return number
        assert number < 500, 'a run makes no progress'
    raise AssertionError


def straight(folder: Path, data: Path, kind: str, by_epoch: bool, world_size: int) -> None:
    """An uninterrupted run."""
    processes = start(folder, data, kind, by_epoch, world_size, 0)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * world_size


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(arguments)
    draws = np.random.default_rng(args.seed)
    root = Path(tempfile.mkdtemp(prefix='killing-'))
    write_data(root / 'data')
    expected: dict[tuple, Path] = {}
    kills: dict[tuple, list[int]] = defaultdict(list)
    plans: list[tuple[int, ...]] = [(1, 2, 4), (2,), (1,), (4, 2)]
    for round_number in range(1000):
        for kind in KINDS:
            sizes = plans[round_number % len(plans)]
            by_epoch = kind != 'stream' and round_number // len(plans) % 2 == 0
            folder = root / f'{kind}-{round_number}'
            number = kill_often(folder, root / 'data', kind, by_epoch, sizes, draws)
            assert_each_sample_once(folder)
            key = kind, by_epoch, sizes[0]
            if key not in expected:
                expected[key] = root / f'straight-{kind}-{by_epoch}-{sizes[0]}'
                straight(expected[key], root / 'data', kind, by_epoch, sizes[0])
            assert visited(folder) == visited(expected[key])  # the same order for all
            if len(sizes) == 1:
                assert losses(folder) == losses(expected[key])  # every time a step was done
            kills[kind, sizes].append(number)
            total = sum(map(sum, kills.values()))
            print(f'{kind} {sizes} {number} kills, all well; {total} in all', flush=True)
            if total >= args.kills:
                for (kind, sizes), numbers in sorted(kills.items()):
                    print(f'{kind}: processes {sizes}: {len(numbers)} runs, {sum(numbers)} kills')
                return


if __name__ == '__main__':
    main()
