"""Tests of the visit seeds: what a sample looks like depends on (seed, epoch, index) only."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path

import mmengine.dataset.sampler as mmengine_sampler
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, DefaultSampler
from torch.utils.data import DataLoader

from mmslip.datasets import ImageTextDataset, Visit, VisitSampler
from mmslip.registry import DATA_SAMPLERS
from mmslip.utils import mix_seed, seeded

PIPELINE = [
    dict(type='mmslip.LoadImage'),
    dict(
        type='mmslip.SLIPViews',
        image=[dict(type='RandomResizedCrop', scale=24, crop_ratio_range=(0.5, 1.0))],
        ssl=[
            dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0)),
            dict(type='mmslip.ColorJitter', brightness=0.4, hue=0.1, prob=0.8),
            dict(type='RandomFlip', prob=0.5),
        ],
    ),
    dict(type='mmslip.TokenizeCaption'),
    dict(type='mmslip.PackSLIPInputs'),
]


@pytest.fixture
def dataset(make_pairs: Callable[..., Path]) -> ImageTextDataset:
    return ImageTextDataset(
        'pairs.jsonl',
        data_root=str(make_pairs(9, captions=5)),
        data_prefix=dict(img_path='images'),
        pipeline=PIPELINE,
    )


def fingerprint(item: dict) -> tuple[bytes, ...]:
    """All bytes of a packed sample."""
    inputs = item['inputs']
    tensors = [inputs['image'], *inputs['views'], inputs['text']]
    return tuple(tensor.numpy().tobytes() for tensor in tensors)


def visits(world_size: int = 1, **kwargs: object) -> list[list[Visit]]:
    """The visits of every rank."""
    found = []
    for rank in range(world_size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mmengine_sampler, 'get_dist_info', lambda: (rank, world_size))  # noqa: B023
            epoch = kwargs.get('epoch', 0)
            rest = {key: value for key, value in kwargs.items() if key not in ('epoch', 'start')}
            sampler = VisitSampler(range(rest.pop('number', 10)), **rest)
            sampler.set_epoch(epoch, kwargs.get('start', 0))
            found.append(list(sampler))
            assert 'start' in kwargs or len(sampler) == len(found[-1])
    return found


def test_mix_seed_is_splitmix64() -> None:
    # First output of the published generator started at zero, without its lowest bit.
    assert mix_seed(0) == 0xE220A8397B1DCDAF >> 1
    many = {mix_seed(a, b, c) for a in range(12) for b in range(12) for c in range(12)}
    assert len(many) == 12**3
    assert max(many) < 2**63
    assert mix_seed(0, 1) != mix_seed(1, 0) != mix_seed(1)


@pytest.mark.parametrize('shuffle', [True, False])
def test_order_is_that_of_the_default_sampler(shuffle: bool) -> None:
    ours = DATA_SAMPLERS.build(
        dict(type='mmslip.VisitSampler', dataset=range(10), shuffle=shuffle, seed=3)
    )
    stock = DefaultSampler(range(10), shuffle=shuffle, seed=3)
    for epoch in range(3):
        ours.set_epoch(epoch)
        stock.set_epoch(epoch)
        assert [int(visit) for visit in ours] == list(stock)
    assert (list(stock) == list(range(10))) is not shuffle


def test_seed_of_a_visit() -> None:
    (ours,) = visits(seed=3, epoch=2)
    assert all((visit.seed, visit.epoch) == (mix_seed(3, 2, visit), 2) for visit in ours)
    for visit in (pickle.loads(pickle.dumps(ours[4])), (ours[4] - 0) % 10):
        assert (visit, visit.seed, visit.epoch) == (ours[4], ours[4].seed, 2)
    assert len({visit.seed for visit in ours}) == 10
    # Neither order nor number of ranks plays a part.
    assert sorted(ours) == visits(seed=3, epoch=2, shuffle=False)[0]
    assert sorted(ours) == sorted(sum(visits(2, seed=3, epoch=2), []))  # noqa: RUF017
    for other in (dict(seed=4, epoch=2), dict(seed=3, epoch=3), dict(seed=2, epoch=3)):
        assert not {visit.seed for visit in ours} & {visit.seed for visit in visits(**other)[0]}


@pytest.mark.parametrize('number', [12, 11, 13])
@pytest.mark.parametrize('shuffle', [True, False])
def test_ranks_are_disjoint_and_as_large(number: int, shuffle: bool) -> None:
    parts = visits(4, number=number, shuffle=shuffle, seed=5, epoch=1)
    assert [len(part) for part in parts] == [number // 4] * 4
    found = [int(visit) for step in zip(*parts, strict=True) for visit in step]
    # The order of one process, but for the samples that all cannot have as many of.
    (alone,) = visits(number=number, shuffle=shuffle, seed=5, epoch=1)
    assert found == alone[: number // 4 * 4]
    assert len(set(found)) == len(found)


def test_another_number_of_ranks_goes_on_behind_what_was_visited() -> None:
    seen: list[Visit] = []
    for world_size, each in ((1, 3), (2, 4), (4, 2), (1, 4)):
        parts = visits(world_size, number=23, seed=5, epoch=1, start=len(seen))
        seen += [
            visit for step in zip(*(part[:each] for part in parts), strict=True) for visit in step
        ]
    assert seen == visits(number=23, seed=5, epoch=1)[0]
    assert sorted(seen) == list(range(23))
    assert visits(4, number=23, seed=5, epoch=1, start=24) == [[]] * 4


def run_epoch(dataset: ImageTextDataset, workers: int, epoch: int) -> list[tuple[bytes, ...]]:
    """Fingerprints of an epoch, in order of the samples, under new global random states."""
    sampler = VisitSampler(dataset, shuffle=False, seed=1)
    sampler.set_epoch(epoch)
    with seeded(1000 * workers + epoch):  # what each worker would otherwise draw from
        loader = DataLoader(
            dataset, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=list
        )
        return [fingerprint(item) for batch in loader for item in batch]


def test_items_do_not_depend_on_workers(dataset: ImageTextDataset) -> None:
    first, second = run_epoch(dataset, 0, epoch=0), run_epoch(dataset, 0, epoch=1)
    assert len(first) == 9
    for workers in (1, 3):
        assert run_epoch(dataset, workers, epoch=0) == first
        assert run_epoch(dataset, workers, epoch=1) == second
    assert run_epoch(dataset, 0, epoch=0) == first
    # Another epoch is another crop of everything, and another caption of most.
    assert all(
        one[0] != two[0] and one[1] != two[1] for one, two in zip(first, second, strict=True)
    )
    assert sum(one[3] != two[3] for one, two in zip(first, second, strict=True)) >= 4
    assert all(one[1] != one[2] for one in first)


def test_unseeded_index_draws_from_the_global_state(dataset: ImageTextDataset) -> None:
    with seeded(7):
        first, second = fingerprint(dataset[3]), fingerprint(dataset[3])
    assert first != second
    assert fingerprint(dataset[Visit(3, 7)]) == first


def test_visit_leaves_the_global_state(dataset: ImageTextDataset) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    fingerprint(dataset[Visit(0, 11)])
    with pytest.raises(ZeroDivisionError), seeded(5):
        random.random() / (np.random.rand() * torch.rand(1).item() * 0)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_seeded_covers_every_source() -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        with seeded(seed):
            return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw(mix_seed(1))
    assert draw(mix_seed(1)) == first
    assert all(one != two for one, two in zip(first, draw(mix_seed(2)), strict=True))


def test_concatenated_data_sets_can_be_visited(dataset: ImageTextDataset) -> None:
    both = ConcatDataset([dataset, dataset])
    assert fingerprint(both[Visit(10, 5)]) == fingerprint(dataset[Visit(1, 5)])
