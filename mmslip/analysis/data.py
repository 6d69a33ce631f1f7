"""Checks of the training data."""

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice, repeat
from typing import Any
from urllib.parse import urlparse

import numpy as np
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader, Dataset

from mmslip.analysis.finding import Finding
from mmslip.datasets.io.faults import BadSamples
from mmslip.datasets.mixed import MixedDataset
from mmslip.datasets.stream import StreamDataset
from mmslip.datasets.table import TableDataset
from mmslip.datasets.text.base import BaseTokenizer
from mmslip.datasets.text.cleaning import clean
from mmslip.datasets.text.tokenizer import CLIPTokenizer
from mmslip.datasets.text.vocabulary import MANY_TOKENS, count_words
from mmslip.engine.mmengine_compat import source_of_sample
from mmslip.utils.parts import is_kind

__all__ = [
    'check_captions',
    'check_duplicates',
    'check_last_batch',
    'check_readable',
    'check_rows',
    'check_shards',
    'check_words',
    'draw_captions',
    'over_epochs',
    'read_samples',
    'shared_in_batch',
    'watch',
]

# mmengine reads as many in 25 s: docs/benchmarks.md has 185 s for 15 million.
_MANY_ROWS = 2_000_000
# Rows that share a caption: whatever is learned, a sigmoid loss that calls them positive and
# negative at once keeps 2 ln 2 of each, 0.07 of the mean at this share.
_MANY_SHARED = 0.05
# Workers that may each fetch all shards.
_MANY_READERS = 8


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
    stream.bad_samples = BadSamples(0.5, max_lost_shards=0.5)
    return stream


def over_epochs(stream: StreamDataset, number: int) -> Iterator[Any]:
    """Items of a stream, which ends with its epoch and then begins the next one."""
    return islice(chain.from_iterable(repeat(stream)), number)


def read_samples(
    dataset: Dataset, number: int, once: bool = False
) -> Iterator[tuple[dict, Callable]]:
    """Readable samples as they are stored, and their pipelines.

    They are the first of a stream, otherwise random ones: of a mix or a repeated set as often as
    training visits them, or each ``once`` at most.
    """
    if isinstance(dataset, StreamDataset):
        with suppress(RuntimeError):  # reported by `check_readable`, as all others are
            for info, _ in over_epochs(watch(dataset), number):
                yield info, dataset.pipeline
        return
    seen = set()
    for index in _draw(dataset, number):
        part, place = _locate(dataset, index)
        if once and (id(part), int(place)) in seen:
            continue
        seen.add((id(part), int(place)))
        with suppress(ValueError, OSError):
            yield part.get_data_info(place), part.pipeline


def draw_captions(dataset: Dataset, number: int) -> list[str]:
    """One caption of each of ``number`` readable samples, drawn as training draws them."""
    rng = np.random.default_rng(0)
    texts = [info['text'] for info, _ in read_samples(dataset, number) if info.get('text')]
    return [text if isinstance(text, str) else text[rng.integers(len(text))] for text in texts]


def check_captions(captions: Sequence[str], tokenizer: BaseTokenizer) -> Finding:
    """Share of captions that the context length cuts, and their lengths."""
    room = tokenizer.room
    lengths = np.array([len(tokenizer.encode(caption)) for caption in captions])
    share = (lengths > room).mean()
    text = f'{share:.1%} of captions are cut to {room} tokens; 95% have at most '
    text += f'{np.percentile(lengths, 95):.0f}'
    if share <= 0.02:
        return Finding('caption length', text)
    remedy = 'a longer context_length of tokenizer and text tower, or shorter captions'
    return Finding('caption length', text, 'warn', remedy)


def check_words(captions: Sequence[str], tokenizer: BaseTokenizer) -> Finding:
    """Tokens a word of captions, of which English has few and other scripts one for each byte."""
    tokens = sum(len(tokenizer.encode(caption)) for caption in captions)
    share = tokens / max(sum(map(count_words, captions)), 1)
    text = f'{share:.1f} tokens a word'
    own = not isinstance(tokenizer, CLIPTokenizer) or tokenizer.own
    if own or share <= MANY_TOKENS:
        return Finding('words', text)
    text += " with CLIP's vocabulary, which was made for English"
    remedy = 'a vocabulary trained on your captions: mmslip init makes one (docs/languages.md)'
    return Finding('words', text, 'warn', remedy)


def check_duplicates(
    captions: Sequence[str], batch_size: int, head: Mapping | None = None, augmented: bool = False
) -> Finding:
    """Share of a batch whose caption is that of another image as well.

    To :class:`mmslip.models.CLIPHead` equal texts are one: it divides its softmax between their
    copies, with the gradient that matching them would give. The sigmoid loss calls them positive
    once and negative once, and so does either with copies that an augmentation has changed.

    Args:
        captions: One of each of some samples.
        batch_size: Samples that are compared with each other, over all processes.
        head: Config of the image-text head.
        augmented: Whether the words of captions are changed.
    """
    name, head = 'duplicate captions', head or dict(type='CLIPHead')
    share = shared_in_batch([clean(caption) for caption in captions], batch_size)
    text = f'{share:.1%} of the samples of a batch of {batch_size} share their caption with another'
    if head.get('match_duplicates'):
        return Finding(name, f'{text}, and match it')
    if share <= _MANY_SHARED:
        return Finding(name, text)
    remedy = 'more varied captions, or fewer copies: nothing tells images of one caption apart'
    if is_kind(head, 'SigLIPHead') or (augmented and is_kind(head, 'CLIPHead')):
        remedy = 'model.head.match_duplicates = True: they are negatives of each other now'
    return Finding(name, text, 'warn', remedy)


def shared_in_batch(values: Sequence[Hashable], batch_size: int) -> float:
    """Expected share of a batch that has a value in common with another of its samples.

    From frequencies in a random part of the data: a value that makes up the share q of the others
    is missing among ``batch_size - 1`` of them with probability (1 - q)^(B - 1).
    """
    counts = np.array(list(Counter(values).values()))
    others = (counts - 1) / max(len(values) - 1, 1)
    return float((counts * (1 - (1 - others) ** (batch_size - 1))).sum() / max(len(values), 1))


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
    """Count of bad samples among random ones, count of those tried, and the last error."""
    bad, last, indices = 0, None, _draw(dataset, number)
    for index in indices:
        try:
            _read(dataset, index)
        except (ValueError, OSError) as error:
            bad, last = bad + 1, error
    return bad, len(indices), last


def _count_in_stream(dataset: StreamDataset, number: int) -> tuple[int, int, Exception | None]:
    """Count of bad samples among the first ones of a stream, of those tried, and the last error."""
    stream = watch(dataset)
    with suppress(RuntimeError):
        for _ in over_epochs(stream, number):
            pass
    bad = stream.bad_samples
    return bad.replaced + bad.lost_shards, bad.visits + bad.lost_shards, bad.last


def _read(dataset: Dataset, index: int) -> None:
    """Run the pipeline of one sample past the policy that replaces bad samples."""
    part, place = _locate(dataset, index)
    part.prepare_data(place)


def _locate(dataset: Dataset, index: int) -> tuple[BaseDataset, int]:
    """The innermost data set that a sample is of, and its index there."""
    while not hasattr(dataset, 'prepare_data'):  # a mix, or a wrapper of mmengine
        mixed = isinstance(dataset, MixedDataset)
        place = dataset.locate(index) if mixed else source_of_sample(dataset, index)
        if isinstance(place, tuple):
            dataset, index = dataset.datasets[place[0]], place[1]
        else:
            dataset, index = dataset.dataset, place
    return dataset, index


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
    """How often the shards of a stream are read in an epoch, and whether that goes over a net."""
    shards, readers = loader.dataset.shards, max(loader.num_workers, 1) * world_size
    text = f'{len(shards)} shards, each read by {readers} workers in every epoch'
    remote = sum(bool(urlparse(shard).scheme) for shard in shards)
    if readers <= _MANY_READERS or not remote:
        return Finding('shards of the stream', text)
    remedy = 'fewer workers, or a copy on disks, of which headers alone are read: docs/data.md'
    return Finding(
        'shards of the stream', f'{text}; {remote} are fetched anew each time', 'warn', remedy
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
