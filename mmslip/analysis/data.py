"""Checks of the training data."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

import numpy as np
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader, Dataset

from mmslip.analysis.finding import Finding
from mmslip.datasets.faults import BadSamples
from mmslip.datasets.mixed import MixedDataset
from mmslip.datasets.stream import StreamDataset
from mmslip.datasets.table import TableDataset
from mmslip.datasets.tokenizer import CLIPTokenizer

__all__ = [
    'check_captions',
    'check_duplicates',
    'check_last_batch',
    'check_readable',
    'check_rows',
    'check_shards',
    'draw_captions',
    'watch',
]

# mmengine reads as many in 25 s: docs/benchmarks.md has 185 s for 15 million.
_MANY_ROWS = 2_000_000


def _draw(dataset: Dataset, number: int) -> list[int]:
    """Indices of different samples, the same at every call."""
    order = np.random.default_rng(0).permutation(len(dataset))
    return order[:number].tolist()


def watch(dataset: StreamDataset) -> StreamDataset:
    """A stream whose items are pairs: a sample as it is stored, and what the pipeline makes of it.

    It has counts of its own, in ``bad_samples``, and raises ``RuntimeError`` where clearly more
    than half of the samples are bad.
    """
    stream = copy.copy(dataset)
    stream.pipeline = lambda info: (dict(info), dataset.pipeline(info))
    stream.bad_samples = BadSamples(0.5)
    return stream


def _infos(dataset: Dataset, number: int) -> Iterator[dict]:
    """Readable samples as they are stored: the first of a stream, otherwise random ones."""
    if isinstance(dataset, StreamDataset):
        with suppress(RuntimeError):  # reported by `check_readable`, as all others are
            yield from (info for info, _ in islice(watch(dataset), number))
        return
    for index in _draw(dataset, number):
        with suppress(ValueError, OSError):
            yield dataset.get_data_info(index)


def draw_captions(dataset: Dataset, number: int) -> list[str]:
    """One caption of each of ``number`` readable samples, drawn as training draws them."""
    rng = np.random.default_rng(0)
    texts = [info['text'] for info in _infos(dataset, number) if len(info['text'])]
    return [text if isinstance(text, str) else text[rng.integers(len(text))] for text in texts]


def check_captions(captions: Sequence[str], tokenizer: CLIPTokenizer) -> Finding:
    """How many captions the context length cuts, and how long captions are."""
    room = tokenizer.context_length - 2  # start and end
    lengths = np.array([len(tokenizer.encode(caption)) for caption in captions])
    share = (lengths > room).mean()
    text = f'{share:.1%} of captions are cut to {room} tokens; 95% have at most '
    text += f'{np.percentile(lengths, 95):.0f}'
    if share <= 0.02:
        return Finding('caption length', text)
    remedy = 'a longer context_length of tokenizer and text tower, or shorter captions'
    return Finding('caption length', text, 'warn', remedy)


def check_duplicates(captions: Sequence[str], batch_size: int) -> Finding:
    """How many samples of a batch meet their own caption at another image: false negatives.

    From the captions' frequencies in a random part of the data: a caption that makes up the share
    q of the others is missing among ``batch_size - 1`` of them with probability (1 - q)^(B - 1).

    Args:
        captions: One of each of some samples.
        batch_size: Samples that are compared with each other, over all processes.
    """
    counts = np.array(list(Counter(captions).values()))
    others = (counts - 1) / max(len(captions) - 1, 1)
    share = float((counts * (1 - (1 - others) ** (batch_size - 1))).sum() / len(captions))
    text = f'{share:.1%} of the samples of a batch of {batch_size} share their caption with another'
    if share <= 0.05:
        return Finding('duplicate captions', text)
    remedy = 'more varied captions, fewer copies, or a smaller batch: they are false negatives'
    return Finding('duplicate captions', text, 'warn', remedy)


def check_readable(dataset: Dataset, number: int, max_share: float = 0.01) -> Finding:
    """Share of unreadable samples among ``number`` of them, pipeline included."""
    count = _count_in_stream if isinstance(dataset, StreamDataset) else _count
    bad, visits, last = count(dataset, number)
    text = f'{bad} of {visits} samples cannot be read'
    if not bad:
        return Finding('readable samples', text)
    verdict = 'fail' if bad / visits > max_share else 'warn'
    return Finding('readable samples', text, verdict, f'repair or remove them, e.g.: {last}')


def _count(dataset: Dataset, number: int) -> tuple[int, int, Exception | None]:
    """How many of random samples are bad, how many were tried, and what the last one lacks."""
    bad, last, indices = 0, None, _draw(dataset, number)
    for index in indices:
        try:
            _read(dataset, index)
        except (ValueError, OSError) as error:
            bad, last = bad + 1, error
    return bad, len(indices), last


def _count_in_stream(dataset: StreamDataset, number: int) -> tuple[int, int, Exception | None]:
    """The same of the first samples of a stream."""
    stream = watch(dataset)
    with suppress(RuntimeError):
        for _ in islice(stream, number):
            pass
    return stream.bad_samples.replaced, stream.bad_samples.visits, stream.bad_samples.last


def _read(dataset: Dataset, index: int) -> None:
    """Run the pipeline of one sample past the policy that replaces bad samples."""
    while not hasattr(dataset, 'prepare_data'):  # a mix, or a wrapper of mmengine
        mixed = isinstance(dataset, MixedDataset)
        place = dataset.locate(index) if mixed else dataset._get_ori_dataset_idx(index)
        if isinstance(place, tuple):
            dataset, index = dataset.datasets[place[0]], place[1]
        else:
            dataset, index = dataset.dataset, place
    dataset.prepare_data(index)


def check_last_batch(loader: DataLoader, world_size: int) -> Finding:
    """Whether an epoch has whole batches only, and has any."""
    size, per_process = loader.batch_size, len(loader.dataset) // world_size
    text = f'{len(loader.dataset)} samples, {size} x {world_size} in a step'
    if loader.drop_last:
        if per_process < size:
            remedy = f'batch_size of at most {per_process}'
            return Finding('last batch', f'{text}: an epoch has no step', 'fail', remedy)
        return Finding('last batch', f'{text}, drop_last')
    if per_process % size == 0:
        return Finding('last batch', text)
    text += f': the last step has {per_process % size} only'
    return Finding(
        'last batch', text, 'warn', 'drop_last=True: a contrastive loss depends on the batch size'
    )


def check_shards(loader: DataLoader, world_size: int) -> Finding:
    """Whether the shards of a stream can be split over the workers of all processes."""
    shards, workers = len(loader.dataset.shards), max(loader.num_workers, 1)
    text = f'{shards} shards for {world_size} processes with {workers} workers each'
    if shards >= world_size * workers:
        return Finding('shards of the stream', text)
    return Finding(
        'shards of the stream', text, 'fail', 'lower num_workers, or write more, smaller shards'
    )


def check_rows(dataset: Dataset) -> Finding:
    """Whether the rows are few enough to be held in memory, by each process anew."""
    held = sum(len(part) for part in _held(dataset))
    text = f'each process holds {held:,} rows in memory'
    if held <= _MANY_ROWS:
        return Finding('rows in memory', text)
    remedy = 'a caption table (tools/dataset_converters), which is opened at once and shared'
    return Finding('rows in memory', text, 'warn', remedy)


def _held(dataset: Dataset) -> Iterator[BaseDataset]:
    """The data sets inside mmengine's wrappers and mixes that read all their rows at the start."""
    if isinstance(dataset, BaseDataset) and not isinstance(dataset, TableDataset):
        yield dataset
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from _held(part)
