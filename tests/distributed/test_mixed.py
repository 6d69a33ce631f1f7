"""Batches of images with and without captions over processes, against one process."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmslip.datasets import MixedDataset
from tests.distributed.pool import run
from tests.distributed.test_sharding import (
    DDP,
    SHARDED,
    STEPS,
    Trace,
    assert_same,
    load,
    make_runner,
    train_all,
)

BATCH = 16  # of all processes: 4 rows with a caption, 12 without
HOOKS = ('mmslip.BatchCheckHook', 'mmslip.ThroughputHook', 'mmslip.ResumeDataHook')


class Random(torch.utils.data.Dataset):
    """Samples of noise, with captions or without; every third one shares its first caption."""

    def __init__(self, size: int, captions: int) -> None:
        self.size, self.captions = size, captions

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(2 * int(index) + (self.captions > 0))
        views = list(torch.randn(3, 3, 16, 16, generator=generator))
        inputs = dict(views=views[:2])
        if self.captions:
            text = torch.randint(1, 48, (self.captions, 10), generator=generator)
            end = 2 + int(index) % 7
            text[:, end], text[:, end + 1 :] = 49, 0
            keys = torch.arange(self.captions + 1) + 10 * int(index)
            keys[1] = int(index) % 3
            inputs.update(image=views[2], text=text if self.captions > 1 else text[0], keys=keys)
        return dict(inputs=inputs)


MATCHED = dict(type='mmslip.CLIPHead', match_duplicates=True)
CASES = {
    'plain': dict(),
    'accumulated': dict(accumulative_counts=2),
    'chunks': dict(model=dict(chunk_size=1)),
    'several': dict(captions=2, model=dict(head=MATCHED)),
    'several chunks': dict(captions=2, model=dict(head=MATCHED, chunk_size=3)),
}


def train(
    folder: str, world_size: int, wrapper: dict, captions: int = 1, **options: Any
) -> np.ndarray:
    """Losses, and rows with and without a caption, of each step."""
    sources = [Random(10, captions), Random(50, 0)]
    loader = dict(
        batch_size=BATCH // world_size,
        drop_last=True,
        sampler=dict(type='mmslip.VisitSampler', shuffle=False),
        collate_fn=dict(type='mmslip.collate'),
        # Its second epoch begins within the run.
        dataset=MixedDataset(sources, weights=[1, 3], length=BATCH * 2, stratified=True),
    )
    hooks = [dict(type=name) for name in HOOKS]
    runner = make_runner(folder, world_size, wrapper, loader=loader, hooks=hooks, **options)
    trace = Trace('loss', 'loss_clip', 'loss_ssl')
    runner.register_hook(trace)
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert scalars['train/captioned'].current() == 4
    assert scalars['train/bare'].current() == 12
    return np.array(trace.steps)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('mixed')


@pytest.fixture(scope='module')
def whole(folder) -> dict:
    """One process with the whole batch; slices change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LOCAL_RANK', '0')
        cases = {name: CASES[name] for name in ('plain', 'accumulated', 'several')}
        return train_all(0, 1, str(folder), dict(one={}), cases, train)


def check(folder: Path, whole: dict, results: list[dict]) -> None:
    """Mean loss of the ranks, weights and moments (of the gradients) of one process."""
    for name in results[0]:
        case = name.partition('-')[2].partition(' ')[0]
        reference = f'one-{case if f"one-{case}" in whole else "plain"}'
        steps = np.mean([result[name] for result in results], axis=0)
        np.testing.assert_allclose(steps, whole[reference], rtol=1e-10, err_msg=name)
        assert_same(load(folder, name), load(folder, reference), name)


@pytest.mark.dist
def test_two_processes_equal_one(folder, whole):
    kinds = {'ddp': DDP, 'sharded': SHARDED}
    check(folder, whole, run(train_all, 2, str(folder), kinds, CASES, train))


@pytest.mark.dist
def test_four_processes_equal_one(folder, whole):
    cases = {name: CASES[name] for name in ('plain', 'several')}
    check(folder, whole, run(train_all, 4, str(folder), dict(ddp4=DDP), cases, train))


def go_on(rank: int, world_size: int, folder: str) -> dict:
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    return dict(begun=train(f'{folder}/begun', world_size, DDP, resume=True, **CASES['several']))


@pytest.mark.dist
def test_a_run_of_one_process_goes_on_with_two(folder, whole, monkeypatch):
    """In the middle of an epoch."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    train(str(folder / 'begun'), 1, {}, steps=1, **CASES['several'])
    results = run(go_on, 2, str(folder))
    steps = np.mean([result['begun'] for result in results], axis=0)
    np.testing.assert_allclose(steps, whole['one-several'][1:], rtol=1e-10)
    assert_same(load(folder, 'begun'), load(folder, 'one-several'))
    assert len(steps) == STEPS - 1
