"""What the order of the training data follows from, by which a place in it is found again."""

from itertools import chain
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any
from urllib.parse import urlsplit

from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset

from mmslip.datasets.base import CaptionedDataset, identify_record
from mmslip.datasets.mixed import MixedDataset
from mmslip.datasets.sampler import VisitSampler
from mmslip.datasets.stream import StreamDataset
from mmslip.utils import digest_of_texts, spread

__all__ = ['order_of']


def order_of(source: VisitSampler | StreamDataset) -> dict[str, Any]:
    """All that the order of an epoch follows from, beside its seed and number.

    A data set is known by its class, its length and a digest of some hundred of its records, which
    does not depend on where it lies; nothing is decoded. A stream is known by its shards: local
    ones by their names, sizes and, of some hundred, first header; others by address or command.

    Returns:
        Plain values.
    """
    if isinstance(source, StreamDataset):
        return dict(
            type=type(source).__name__,
            shuffle_buffer=source.shuffle_buffer,
            shards=len(source.shards),
            digest_of_shards=digest_of_texts(
                chain(map(_identify_shard, source.shards), map(_header, spread(source.shards)))
            ),
        )
    return dict(
        type=type(source).__name__, shuffle=source.shuffle, dataset=_identify(source.dataset)
    )


def _identify(dataset: Dataset) -> dict[str, Any]:
    """The same of a data set, and of those within it."""
    found = dict(type=type(dataset).__name__, samples=len(dataset))
    if isinstance(dataset, BaseDataset):
        found['digest_of_records'] = digest_of_texts(
            _identify_sample(dataset, index) for index in spread(range(len(dataset)))
        )
    elif isinstance(dataset, MixedDataset):
        found.update(weights=dataset.weights, seed=dataset.seed)
        if dataset.stratified:
            found['stratified'] = True
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    parts = [_identify(part) for part in inner if isinstance(part, Dataset)]
    return dict(found, datasets=parts) if parts else found


def _identify_sample(dataset: BaseDataset, index: int) -> str:
    try:
        if isinstance(dataset, CaptionedDataset):
            return dataset.identify(index)
        return identify_record(dataset, index)
    except (ValueError, OSError):  # a bad sample, told when it is visited
        return ''


def _identify_shard(shard: str) -> str:
    address = urlsplit(shard)
    if address.scheme:
        return address._replace(query='').geturl()  # a signature in it is another every day
    path = Path(shard)
    return f'{path.name} {path.stat().st_size}'


def _header(shard: str) -> str:
    """Name, size and time of the first member of a local shard that can be read."""
    if urlsplit(shard).scheme:
        return ''
    try:
        with open(shard, 'rb') as file:
            return file.read(BLOCKSIZE).hex()
    except OSError:
        return ''
