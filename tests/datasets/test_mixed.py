"""Tests of mixed sources: proportions, passes without repetition, and independence of workers."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import mmengine.dataset.sampler as mmengine_sampler
import numpy as np
import pytest
from mmengine.logging import MMLogger
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset

from mmslip.datasets import ImageTextDataset, MixedDataset, Visit, VisitSampler
from mmslip.datasets.mixed import _BLOCK, permute
from mmslip.registry import DATASETS
from mmslip.utils import mix_seed


class Numbers:
    """A source whose items say what was asked for."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[str, int, int | None]:
        assert 0 <= index < self.size
        return self.name, int(index), getattr(index, 'seed', None)


def mix(*sizes: int, weights: list[float], length: int = 1000, **kwargs: object) -> MixedDataset:
    sources = [Numbers('abcdef'[number], size) for number, size in enumerate(sizes)]
    return MixedDataset(sources, weights=weights, length=length, **kwargs)


def epoch_of(dataset: MixedDataset, epoch: int, workers: int = 0, **kwargs: object) -> list[tuple]:
    sampler = VisitSampler(dataset, seed=kwargs.pop('seed', 3), **kwargs)
    sampler.set_epoch(epoch)
    loader = DataLoader(
        dataset, batch_size=7, sampler=sampler, num_workers=workers, collate_fn=list
    )
    return [item for batch in loader for item in batch]


@pytest.mark.parametrize('size', [1, 2, 3, 15, 16, 17, 100, 1025])
def test_permute_is_one_to_one(size: int) -> None:
    orders = [[permute(index, size, key) for index in range(size)] for key in (1, 2)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    if size > 10:
        assert orders[0] != orders[1]
        assert orders[0] != list(range(size))


def test_permute_is_even() -> None:
    """Chi-squared of where two elements go, over many keys; its deviation is sqrt(2 n)."""
    size, keys = 12, 6000
    pairs = Counter((permute(0, size, key), permute(1, size, key)) for key in range(keys))
    cells = size * (size - 1)
    expected = keys / cells
    chi = sum((pairs[pair] - expected) ** 2 / expected for pair in pairs)
    chi += (cells - len(pairs)) * expected
    assert abs(chi - cells) < 5 * math.sqrt(2 * cells)


@pytest.mark.parametrize('weights', [[2, 1, 5], [0.1, 0.2, 0.7], [1e-4, 3, 1 / 3]])
def test_proportions_are_kept_in_the_long_run(weights: list[float]) -> None:
    dataset = mix(50, 60, 70, weights=weights)
    previous = [0, 0, 0]
    for blocks in [*range(1, 200), 10**6, 10**9]:
        number = blocks * _BLOCK
        totals = dataset._totals(number)
        assert sum(totals) == number
        assert all(now >= before for now, before in zip(totals, previous, strict=True))
        for total, weight in zip(totals, weights, strict=True):
            assert abs(total - number * weight / sum(weights)) <= 3
        previous = totals
    blocks = 3
    counts = Counter(dataset.locate(position)[0] for position in range(blocks * _BLOCK))
    assert [counts[source] for source in range(3)] == dataset._totals(blocks * _BLOCK)


def test_proportions_of_parts_vary_like_draws() -> None:
    dataset = mix(50, 50, weights=[0.3, 0.7])
    size, parts, scores = 128, 80, []  # eight parts of a block: drawn without putting back
    deviation = math.sqrt(0.3 * 0.7 * size * (_BLOCK - size) / (_BLOCK - 1))
    for part in range(parts):
        drawn = sum(dataset.locate(size * part + number)[0] == 0 for number in range(size))
        scores.append((drawn - 0.3 * size) / deviation)
    assert max(map(abs, scores)) < 4
    assert 0.5 < sum(score**2 for score in scores) / parts < 1.6  # neither regular nor clustered


def test_no_repetition_before_a_source_is_exhausted() -> None:
    sizes = (37, 500, 1)
    dataset = mix(*sizes, weights=[1, 2, 0.1], length=60)
    visits: list[list[int]] = [[], [], []]
    for position in range(5000):
        source, index = dataset.locate(position)
        visits[source].append(index)
    for size, walked in zip(sizes, visits, strict=True):
        passes = [walked[start : start + size] for start in range(0, len(walked), size)]
        assert len(passes) > 3
        assert all(sorted(part) == list(range(size)) for part in passes[:-1])
        assert len(set(passes[-1])) == len(passes[-1])
        if size > 1:  # every pass in another order
            assert all(one[:5] != two[:5] for one, two in pairwise(passes[:-1]))


def test_epochs_go_on_and_do_not_depend_on_workers_or_ranks() -> None:
    dataset = mix(90, 300, weights=[1, 3], length=100, seed=5)
    epochs = [epoch_of(dataset, epoch, shuffle=False) for epoch in range(3)]
    for epoch, items in enumerate(epochs):
        assert len(items) == 100
        for place, (name, index, seed) in enumerate(items):
            assert ('ab'.index(name), index) == dataset.locate(100 * epoch + place)
            assert seed == mix_seed(3, epoch, place)
        assert epoch_of(dataset, epoch, workers=2, shuffle=False) == items
        assert Counter(epoch_of(dataset, epoch, shuffle=True)) == Counter(items)
    # Over the ends of epochs, no sample comes twice.
    seen = [item[:2] for items in epochs for item in items if item[0] == 'b']
    assert len(set(seen)) == len(seen) > 200
    assert {item[:2] for item in epochs[0]} != {item[:2] for item in epochs[1]}
    other = mix(90, 300, weights=[1, 3], length=100, seed=6)
    assert [item[:2] for item in epoch_of(other, 0, shuffle=False)] != [i[:2] for i in epochs[0]]

    parts = []
    for rank in range(4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mmengine_sampler, 'get_dist_info', lambda: (rank, 4))  # noqa: B023
            parts.append(epoch_of(dataset, 1, shuffle=False))
    assert [parts[place % 4][place // 4] for place in range(100)] == epochs[1]


def test_resumed_epoch_goes_on() -> None:
    dataset = mix(90, 300, weights=[1, 3], length=100)
    sampler = VisitSampler(dataset, seed=1)
    sampler.set_epoch(2)
    whole = [dataset[visit] for visit in sampler]
    sampler.set_epoch(2, 30)
    assert [dataset[visit] for visit in sampler] == whole[30:]
    expected = [dataset.locate(position) for position in range(200, 300)]
    assert sorted(('ab'.index(name), index) for name, index, _ in whole) == sorted(expected)


def ranks_of(
    dataset: MixedDataset, world_size: int, epoch: int = 0, start: int = 0
) -> list[list[tuple]]:
    """The items of every process."""
    parts = []
    for rank in range(world_size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mmengine_sampler, 'get_dist_info', lambda: (rank, world_size))  # noqa: B023
            sampler = VisitSampler(dataset, seed=3, shuffle=False)
        sampler.set_epoch(epoch, start)
        parts.append([dataset[visit] for visit in sampler])
        assert sampler.left(start) == len(parts[-1])
    return parts


def batches_of(parts: list[list[tuple]], size: int) -> list[list[list[tuple]]]:
    """Batches of each process, by steps."""
    batches = [[part[at : at + size] for at in range(0, len(part), size)] for part in parts]
    return [list(step) for step in zip(*batches, strict=True)]


@pytest.mark.parametrize(('weights', 'cycle'), [([1, 3], 4), ([4, 2, 10], 8), ([5], 1)])
def test_every_batch_of_every_process_has_its_shares(weights: list[int], cycle: int) -> None:
    dataset = mix(*[90, 300, 41][: len(weights)], weights=weights, length=400, stratified=True)
    assert dataset.cycle == cycle
    for world_size in (1, 2, 3, 4):
        for step in batches_of(ranks_of(dataset, world_size, epoch=1), 16):
            for batch in step:
                counts = Counter(name for name, *_ in batch)
                found = [counts['abc'[number]] for number in range(len(weights))]
                assert found == [weight * len(batch) // sum(weights) for weight in weights]


def test_shares_are_of_the_same_samples_for_any_number_of_processes() -> None:
    dataset = mix(90, 300, weights=[1, 3], length=400, stratified=True)
    for epoch in (0, 2):
        (alone,) = ranks_of(dataset, 1, epoch)
        whole = [sorted(items) for (items,) in batches_of([alone], 48)]
        for world_size in (2, 3, 4):
            parts = ranks_of(dataset, world_size, epoch)
            steps = [sorted(sum(step, [])) for step in batches_of(parts, 48 // world_size)]  # noqa: RUF017
            assert steps[:8] == whole[:8]  # what is left over is less than a step of all
        # Over the ends of epochs, no sample comes twice; visits have seeds of their own.
        assert [item[:2] for item in alone if item[0] == 'a'][:90] != list(range(90))
    first, second = (ranks_of(dataset, 1, epoch)[0] for epoch in (0, 1))
    visits = [index for name, index, _ in first + second if name == 'a']
    assert sorted(visits[:90]) == sorted(visits[90:180]) == list(range(90))
    assert len({seed for *_, seed in first + second}) == 800


def test_other_processes_and_batches_go_on_with_their_shares() -> None:
    dataset = mix(90, 300, weights=[1, 3], length=400, stratified=True)
    (straight,) = ranks_of(dataset, 1, epoch=1)
    seen: list[tuple] = []
    for world_size, size, steps in ((1, 16, 3), (4, 8, 2), (2, 4, 5), (3, 4, 6)):
        parts = ranks_of(dataset, world_size, epoch=1, start=len(seen))
        for step in batches_of(parts, size)[:steps]:
            assert all(Counter(item[0] for item in batch)['a'] == size // 4 for batch in step)
            seen += sum(step, [])  # noqa: RUF017
    assert sorted(seen) == sorted(straight[: len(seen)])
    assert len(seen) == 48 + 64 + 40 + 72


def test_the_log_says_how_often_a_source_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    logger = MMLogger.get_instance('mixed-test')
    with caplog.at_level('INFO', logger.name):
        logger.addHandler(caplog.handler)
        mix(50, 1200, weights=[2, 6], length=400, stratified=True)
        mix(50, 1200, weights=[0.5, 0.5], length=1000)
    assert [record.getMessage() for record in caplog.records] == [
        'Of 400 samples in an epoch, 1 : 3 in every batch: datasets[0] (Numbers) 100, 2.00 passes '
        'over 50; datasets[1] (Numbers) 300, 0.25 passes over 1,200',
        'Of 1,000 samples in an epoch: datasets[0] (Numbers) 500, 10.00 passes over 50; '
        'datasets[1] (Numbers) 500, 0.42 passes over 1,200',
    ]


def test_a_stratified_mix_is_not_shuffled() -> None:
    dataset = mix(90, 300, weights=[1, 3], length=400, stratified=True)
    with pytest.raises(ValueError, match='set shuffle=False of the sampler'):
        VisitSampler(dataset)


def test_streams_are_refused() -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            yield from ()

    message = r'datasets\[1\], a Stream, is a stream, .* for mmslip.ShardDataset'
    with pytest.raises(TypeError, match=message):
        MixedDataset([Numbers('a', 4), Stream()], weights=[1, 1], length=4)


def test_epochs_of_a_mix_inside_another_data_set() -> None:
    dataset = mix(90, 300, weights=[1, 3], length=100)
    both = ConcatDataset([Numbers('x', 7), dataset])
    for epoch in (0, 2):
        assert both[Visit(7 + 3, 11, epoch)] == dataset[Visit(3, 11, epoch)]
        name, index, seed = dataset[Visit(3, 11, epoch)]
        assert (('ab'.index(name), index), seed) == (dataset.locate(100 * epoch + 3), 11)


def test_index_alone_is_of_the_first_epoch() -> None:
    dataset = mix(4, 4, weights=[1, 1])
    name, index, seed = dataset[3]
    assert ('ab'.index(name), index) == dataset.locate(3)
    assert seed is None


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(weights=[1, 0]), r'finite and above zero, not \[1, 0\]'),
        (dict(weights=[1, -2]), 'finite and above zero'),
        (dict(weights=[1, math.nan]), 'finite and above zero'),
        (dict(weights=[1, math.inf]), 'finite and above zero'),
        (dict(weights=[1]), '2 datasets need as many weights, not 1'),
        (dict(weights=[1, 2], length=0), 'samples in an epoch, not 0'),
        (dict(weights=[1, 2], length=2.5), 'samples in an epoch, not 2.5'),
        (dict(weights=[0.5, 1], stratified=True), r'must be whole numbers with stratified=True'),
        (
            dict(weights=[2, 14], stratified=True, length=1001),
            r'length=1001 must be a multiple of 8, .* such as 1008',
        ),
    ],
)
def test_bad_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix(4, 4, **kwargs)


def test_no_or_empty_sources() -> None:
    with pytest.raises(ValueError, match='0 datasets'):
        mix(weights=[])
    with pytest.raises(ValueError, match=r'datasets\[1\] is empty'):
        mix(4, 0, weights=[1, 1])


def test_sources_from_configs(make_pairs: Callable[..., Path]) -> None:
    root = make_pairs(4)
    source = dict(
        type='mmslip.ImageTextDataset',
        ann_file='pairs.jsonl',
        data_root=str(root),
        data_prefix=dict(img_path='images'),
        pipeline=[dict(type='mmslip.LoadImage'), dict(type='RandomCrop', crop_size=8)],
    )
    mixed = DATASETS.build(
        dict(type='mmslip.MixedDataset', datasets=[source, source], weights=[1, 1], length=6)
    )
    assert len(mixed) == 6
    assert mixed.metainfo == mixed.datasets[0].metainfo
    plain = ImageTextDataset(**{key: value for key, value in source.items() if key != 'type'})
    (visit, *_) = VisitSampler(mixed, seed=0, shuffle=False)
    _, index = mixed.locate(0)
    views = mixed[visit]['img'], plain[Visit(index, visit.seed)]['img']
    np.testing.assert_array_equal(*views)
    assert views[0].shape == (8, 8, 3)
    assert mixed.get_data_info(0) == plain.get_data_info(index)
