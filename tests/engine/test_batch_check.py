"""Batches that a training cannot learn from are refused before its first step."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.runner import Runner
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset

from mmslip.datasets import MixedDataset, VisitSampler, collate, count_rows
from mmslip.engine import BatchCheckHook, captioned_rows, check_batches


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, make_slip: Callable) -> Callable[..., None]:
    """Check the loader of one of some processes."""

    def run(
        number: int,
        size: int,
        processes: int = 1,
        drop_last: bool = True,
        round_up: bool = True,
        slip: bool = True,
        begun: bool = True,
    ) -> None:
        ranks = (0, processes if begun else 1)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: ranks)
        data = torch.zeros(number)
        sampler = DefaultSampler(data, round_up=round_up)
        loader = DataLoader(data, size, sampler=sampler, drop_last=drop_last)
        check_batches(make_slip() if slip else torch.nn.Identity(), loader, processes)

    return run


GOOD = [
    dict(number=64, size=16),
    dict(number=70, size=16),
    dict(number=70, size=16, drop_last=False),  # a smaller last batch of different samples
    dict(number=64, size=16, processes=4, drop_last=False),
    dict(number=63, size=4, processes=4),  # the one sample too many is not in the batch of its twin
    dict(number=66, size=4, processes=4, round_up=False),
    dict(number=64, size=1, processes=4),
    dict(number=63, size=4, processes=4, drop_last=False, slip=False),
    dict(number=65, size=16, drop_last=False, slip=False),
]
BAD = [
    (
        dict(number=64, size=256),
        'train_dataloader: 64 samples in batches of 256 give no step: an epoch drops its last, '
        'incomplete batch. Set train_dataloader.batch_size to at most 64, or give more samples.',
    ),
    (
        dict(number=64, size=32, processes=4, slip=False),
        '64 samples in batches of 32 a process x 4 processes give no step: an epoch drops its '
        'last, incomplete batch. Set train_dataloader.batch_size to at most 16',
    ),
    (dict(number=0, size=4, drop_last=False), '0 samples in batches of 4 give no step'),
    (
        dict(number=65, size=16, drop_last=False),
        'leave a last batch of one sample, which has nothing to be compared with: set '
        'drop_last=True or another batch_size.',
    ),
    (dict(number=64, size=1), 'a sample alone has nothing to be compared with'),
    (
        dict(number=62, size=6, processes=4, drop_last=False),
        'are filled up with 2 samples a second time, which would be told from themselves: set '
        'drop_last=True',
    ),
    (dict(number=14, size=4, processes=4), 'are filled up with 2 samples a second time'),
    (
        dict(number=63, size=16, processes=4, round_up=False),  # 16, 16, 16 and 15 samples
        'give the processes different batches, for which they would wait for ever: set '
        'round_up=True of the sampler.',
    ),
    (
        dict(number=66, size=4, processes=4, round_up=False, drop_last=False, slip=False),
        'give the processes different batches',
    ),
]


@pytest.mark.parametrize('begun', [True, False])  # in training, in `mmslip doctor --gpus`
@pytest.mark.parametrize('job', GOOD, ids=str)
def test_batches_to_learn_from(job: dict, begun: bool, check: Callable) -> None:
    check(**job, begun=begun)


@pytest.mark.parametrize('begun', [True, False])
@pytest.mark.parametrize(('job', 'message'), BAD, ids=lambda value: str(value)[:60])
def test_batches_that_nothing_is_learned_from(
    job: dict, message: str, begun: bool, check: Callable
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check(**job, begun=begun)


@pytest.mark.parametrize(
    ('queue', 'number', 'drop_last', 'fault'),
    [
        (64, 40, True, None),
        (64, 48, False, None),
        (60, 40, True, 'model.ssl.queue_len = 60 is no multiple of the 16 samples of a step'),
        (64, 40, False, 'a last batch of 4 samples, .* set drop_last=True'),
    ],
)
def test_a_queue_takes_whole_batches(
    queue: int, number: int, drop_last: bool, fault: str | None, make_slip: Callable
) -> None:
    """MoCo's, of mmpretrain, would fail when it is full, or at the end of an epoch."""
    model, data = make_slip(), range(number)
    model.ssl.queue_len = queue
    sampler = VisitSampler(data)
    sampler.world_size = 2
    loader = DataLoader(data, 8, sampler=sampler, drop_last=drop_last)
    with nullcontext() if fault is None else pytest.raises(ValueError, match=fault):
        check_batches(model, loader, 2)


def test_streams_have_no_last_batch() -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            yield from ()

    loader = DataLoader(Stream(), 4)
    model = torch.nn.Identity()
    check_batches(model, loader)
    runner = SimpleNamespace(train_dataloader=loader, world_size=1, model=model)
    BatchCheckHook().before_train(runner)


class Sources(torch.utils.data.Dataset):
    """Samples with a caption or without."""

    def __init__(self, size: int, captioned: bool) -> None:
        self.size, self.captioned = size, captioned

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        image = torch.zeros(3, 4, 4)
        language = dict(image=image, text=torch.ones(2)) if self.captioned else {}
        return dict(inputs=dict(views=[image, image], **language))


def few_captions(
    make_slip: Callable,
    size: int = 16,
    captioned: int = 20,
    weights: tuple = (1, 3),
    stratified: bool = True,
    world_size: int = 1,
    collate_fn: Callable = collate,
    sampler: type = VisitSampler,
    **model: object,
) -> tuple[torch.nn.Module, DataLoader, int]:
    """Model, loader and number of processes, with captions for some of the images."""
    sources = [Sources(captioned, True), Sources(60, False)]
    mix = MixedDataset(sources, weights=weights, length=80, stratified=stratified)
    loader = DataLoader(
        mix,
        size,
        sampler=sampler(mix, shuffle=False),
        drop_last=True,
        collate_fn=partial(collate_fn),
    )
    return make_slip(**model), loader, world_size


NO_LANGUAGE = dict.fromkeys(('neck', 'text_backbone', 'text_neck', 'head'))


def test_few_captions(make_slip: Callable) -> None:
    model, loader, _ = few_captions(make_slip)
    check_batches(model, loader)
    assert captioned_rows(loader) == 4
    for batch in loader:
        assert count_rows(batch['inputs']) == (4, 16)
    check_batches(*few_captions(make_slip, size=4, world_size=2))
    # Without a language half, captions play no part.
    check_batches(*few_captions(make_slip, stratified=False, **NO_LANGUAGE))
    both = ConcatDataset([Sources(5, True), Sources(3, True)])
    loader = DataLoader(both, 4)
    check_batches(make_slip(), loader)
    assert captioned_rows(loader) == 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(ssl=None), r'datasets\[1\] .* no captions, and the model has no `ssl` half'),
        (dict(stratified=False), 'would vary from batch to batch .* with stratified=True'),
        (dict(collate_fn=default_collate), "set collate_fn=dict.type='mmslip.collate'."),
        (dict(size=18), r'batch_size = 18 cannot be parted by the weights \[1, 3\] .* of 4'),
        (dict(captioned=3), r'a step takes 4 samples of datasets\[0\], which has 3'),
        (
            dict(world_size=5, captioned=19),
            r'a step takes 20 samples of datasets\[0\], which has 19',
        ),
        (dict(size=4), 'a step has one caption from the others'),
        (dict(sampler=DefaultSampler), "needs sampler=dict.type='mmslip.VisitSampler'"),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_captions_that_nothing_is_learned_from(
    options: dict, message: str, make_slip: Callable
) -> None:
    run = few_captions(make_slip, **options)
    with pytest.raises(ValueError, match=message):
        check_batches(*run)


def test_images_without_captions_that_are_only_appended(make_slip: Callable) -> None:
    both = ConcatDataset([Sources(5, True), Sources(3, False)])
    loader = DataLoader(both, 4)
    with pytest.raises(ValueError, match=r'mmslip\.MixedDataset with stratified=True'):
        check_batches(make_slip(), loader)
    assert captioned_rows(loader) == 2.5


def test_a_stratified_mix_inside_another_data_set(make_slip: Callable) -> None:
    model, loader, _ = few_captions(make_slip)
    mix = loader.dataset
    for dataset in (Subset(mix, range(80)), MixedDataset([mix, mix], weights=[1, 1], length=9)):
        with pytest.raises(ValueError, match='make it the data set of the loader'):
            check_batches(model, DataLoader(dataset, 16))


def test_a_number_of_batches_per_epoch(make_slip: Callable) -> None:
    """mmengine slices the mix, whose shares stay."""
    model, loader, _ = few_captions(make_slip)
    loader = Runner.build_dataloader(
        dict(
            batch_size=16,
            num_batch_per_epoch=2,
            sampler=dict(type='mmslip.VisitSampler', shuffle=False),
            collate_fn=dict(type='mmslip.collate'),
            dataset=loader.dataset,
        )
    )
    check_batches(model, loader)
    assert captioned_rows(loader) == 4
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        assert [count_rows(batch['inputs']) for batch in loader] == [(4, 16)] * 2
