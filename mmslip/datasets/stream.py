"""Pairs streamed from tar shards that need not lie on this machine."""

import bz2
import gzip
import lzma
import random
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from braceexpand import braceexpand
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info
from torch.utils.data import IterableDataset, get_worker_info

from mmslip.datasets.io.captions import as_list, check_use
from mmslip.datasets.io.faults import BadSampleError, BadSamples
from mmslip.datasets.io.patterns import expand_braces
from mmslip.datasets.io.tar_sample import (
    TEXT_MEMBERS,
    caption_fields,
    files_of,
    is_part,
    list_members,
    open_tar,
    require_image,
    split_name,
)
from mmslip.registry import DATASETS
from mmslip.utils import mix_seed, seeded

__all__ = ['StreamDataset']

_BLOCK = 2**16  # bytes
# Samples that are tried in the place of a bad one.
_TRIES = 8
# By first bytes. Unlike tarfile's own, these go on behind the end of a compressed part.
_DECOMPRESSORS = {b'\x1f\x8b': gzip.open, b'BZ': bz2.open, b'\xfd7': lzma.open}


class _Stored(NamedTuple):
    """A member that is left in its file until it is needed."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.path, 'rb') as file:
            file.seek(self.offset)
            return file.read(self.size)


class _Sample(NamedTuple):
    """A sample that is not decoded yet: its members by suffix."""

    name: str  # SHARD:STEM
    stem: str
    parts: dict[str, bytes | _Stored]


@DATASETS.register_module()
class StreamDataset(IterableDataset):
    """Tar shards read from beginning to end: from a disk, a server or a command.

    The samples are those of :class:`mmslip.datasets.ShardDataset`, which is to be preferred where
    the shards lie on a file system; the members of a sample must stand next to each other.

    *Order.* An epoch is one pass over all shards, in an order drawn by seed and epoch; within that
    sequence, samples are shuffled in windows of ``shuffle_buffer``. The order follows from seed,
    epoch and shard list alone. As with :class:`mmslip.datasets.VisitSampler`, position ``p`` of it
    belongs to process ``p % world_size``; the last samples, fewer than a batch of all processes,
    are left out of the epoch. So every other sample comes once in an epoch, for any number of
    processes and workers, and a run that is resumed, with as many or others, goes on at the next.
    Views depend on seed, epoch and sample alone.

    *Price.* Each worker of each process passes over all shards, and decodes its own samples only.
    Of a file it reads the headers of the others, of a URL or a command every byte: where that is
    too much traffic, use few workers, or copy the shards to disks. A resumed run passes over what
    the epoch has had in the same way.

    A bad sample (:class:`BadSamples`) is replaced by its neighbour in the shard or, if those are
    bad, too, by another of the batch. A shard that cannot be read to its end is listed and
    counted, too. If one process can read it and another cannot, their positions differ until the
    end of the epoch.

    Train with the iteration loop, ``train_cfg=dict(by_epoch=False, max_iters=...)``, and
    ``sampler=None`` in the data loader.

    Args:
        shards: Paths, URLs (``https://...``) or shell commands that write a shard to their standard
            output (``pipe:aws s3 cp s3://bucket/{000..127}.tar -``), with ranges in braces.
        length: Samples in an epoch, over all processes, by which schedules and logs count epochs.
            The epoch itself ends where the last shard does.
        caption_keys: Keys of captions in the ``.json`` member; values are texts or lists of texts.
        caption_members: As for :class:`mmslip.datasets.ShardDataset`.
        captions: As for :class:`mmslip.datasets.CaptionedDataset`.
        pipeline: Transforms.
        shuffle_buffer: Samples, still encoded, that are shuffled together.
        seed: Seed of the order and of the views.
        max_bad_share: Training stops where more than this share of the samples is bad; 0 raises at
            the first.
        max_lost_shards: The same of the shards that cannot be read to their end.

    Raises:
        ImportError: ``webdataset`` is not installed.
        FileNotFoundError: A shard given as a path does not exist.
        ValueError: No shard can be read, or all samples are fewer than a batch of all processes.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        length: int,
        caption_keys: str | Sequence[str] = 'caption',
        caption_members: str | Sequence[str] = TEXT_MEMBERS,
        captions: str = 'required',
        pipeline: Sequence[dict] = (),
        shuffle_buffer: int = 1000,
        seed: int = 0,
        max_bad_share: float = 0.01,
        max_lost_shards: float = 0.05,
    ) -> None:
        _webdataset()  # better missed here than in a worker
        patterns = [shards] if isinstance(shards, str) else shards
        self.shards = [
            shard
            for pattern in patterns
            for shard in (braceexpand if urlparse(pattern).scheme else expand_braces)(pattern)
        ]
        for shard in self.shards:
            if not urlparse(shard).scheme and not Path(shard).is_file():
                raise FileNotFoundError(f'There is no shard {shard}: check `shards`.')
        if length < 1 or length != int(length):
            raise ValueError(f'length must be the number of samples in an epoch, not {length}.')
        self.length = int(length)
        self.caption_keys = as_list(caption_keys)
        self.caption_members = list_members(caption_members)
        self.captions = check_use(captions)
        self.pipeline = Compose(pipeline)
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.bad_samples = BadSamples(max_bad_share, max_lost_shards)
        self.metainfo: dict = {}
        # Asked here, since a spawned worker knows nothing of the process group.
        self.rank, self.world_size = get_dist_info()
        # Of the data loader; ResumeDataHook sets it.
        self.batch_size = 1
        self.set_epoch(0)

    def __len__(self) -> int:
        """Samples of this process in an epoch, from which mmengine counts its steps."""
        return self.length // self.world_size

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose what the next pass is; by itself, it is that of the next epoch.

        Args:
            epoch: Number of the epoch.
            start: Samples at the beginning of the epoch's order that are left out, because the
                processes of a run that is being resumed have visited them.
        """
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[Any]:
        """Items of this worker in one epoch."""
        epoch, start = self.epoch, self.start
        # For workers that stay: what the hook says from then on is said to the main process.
        self.set_epoch(epoch + 1)
        return self._items(epoch, start)

    def _items(self, epoch: int, start: int) -> Iterator[Any]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        step_size = self.batch_size * self.world_size
        position, batch = 0, []
        stored = self._samples(epoch)
        for window in count():
            samples = tuple(islice(stored, self.shuffle_buffer))
            if not samples:
                break
            order = list(range(len(samples)))
            random.Random(mix_seed(self.seed, epoch, window)).shuffle(order)
            for place in order:
                position += 1
                step, within = divmod(position - 1 - start, step_size)
                if step < 0:
                    continue
                if step % workers == number and within % self.world_size == self.rank:
                    # Itself, and what follows it in the shard.
                    batch.append((*samples[place:], *samples[:place])[:_TRIES])
                if within == step_size - 1:  # all processes have a whole batch
                    yield from self._decode(batch, epoch)
                    batch = []
        if not position:
            raise ValueError(
                f'None of {len(self.shards)} shards has a sample that can be read, such as '
                f'{self.shards[0]}: check `shards`.'
            )
        if position < step_size:
            raise ValueError(
                f'The {len(self.shards)} shards have {position} samples, fewer than a batch of all '
                f'processes ({step_size}): lower `batch_size`.'
            )

    def _samples(self, epoch: int) -> Iterator[_Sample]:
        """All samples of an epoch, shard after shard."""
        shards = self.shards.copy()
        random.Random(mix_seed(self.seed, epoch)).shuffle(shards)
        for shard in shards:
            try:
                yield from _read_shard(shard)
            except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
                lost = BadSampleError(
                    f'{shard} cannot be read, or not to its end ({_reason(error)}): make or copy '
                    'it again, or leave it out.'
                )
                self._note(lost)
                self.bad_samples.count_shard(lost)
            else:
                self.bad_samples.count_shard(None)

    def _decode(self, batch: list[tuple[_Sample, ...]], epoch: int) -> list[Any]:
        """Items of a batch, each the first of some samples that works.

        A batch keeps its size, by which positions are counted, unless all of it is bad.
        """
        found = [self._first_good(samples, epoch) for samples in batch]
        good = [item for item in found if item is not None]
        if not good:
            return []
        return [
            good[place % len(good)] if item is None else item for place, item in enumerate(found)
        ]

    def _first_good(self, samples: tuple[_Sample, ...], epoch: int) -> Any:
        fault = None
        for sample in samples:
            try:
                with seeded(mix_seed(self.seed, epoch, zlib.crc32(sample.name.encode()))):
                    item = self.pipeline(self._info(sample))
                break
            except (BadSampleError, OSError) as error:
                self._note(error)
                fault = fault or error
        else:
            item = None
        self.bad_samples.count(fault)
        return item

    def _info(self, sample: _Sample) -> dict:
        """Fields of a sample that enter the pipeline."""
        image = require_image(sample.parts, sample.name)
        info = caption_fields(
            sample.parts,
            lambda suffix: _content(sample.parts[suffix]),
            self.caption_members,
            self.caption_keys,
            sample.name,
            self.captions,
        )
        info.update(
            img_bytes=_content(sample.parts[image]), img_name=sample.name, sample_idx=sample.stem
        )
        return info

    def _note(self, error: Exception) -> None:
        if not self.bad_samples.max_share:
            raise error
        self.bad_samples.add(None, error)


def _webdataset() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise ImportError(
            "StreamDataset needs webdataset: pip install 'webdataset>=0.2.86' (or "
            "'mmslip[stream]')."
        ) from error
    return webdataset


def _read_shard(shard: str) -> Iterator[_Sample]:
    """One sample after the other."""
    members = _members_of_stream(shard) if urlparse(shard).scheme else _members_of_file(shard)
    for stem, parts in _group(members):
        if parts.keys() != {'cls'}:
            yield _Sample(f'{shard}:{stem}', stem, parts)


def _group(
    members: Iterator[tuple[str, bytes | _Stored]],
) -> Iterator[tuple[str, dict[str, bytes | _Stored]]]:
    """Key and parts of one sample after the other; a suffix that comes again begins another."""
    current, parts = '', {}
    for name, content in members:
        key, suffix = split_name(name) or ('', '')
        if is_part(suffix):
            if parts and (key != current or suffix in parts):
                yield current, parts
                parts = {}
            current, parts[suffix] = key, content
    if parts:
        yield current, parts


def _members_of_file(path: str) -> Iterator[tuple[str, bytes | _Stored]]:
    """Names of members, and where in the file they are."""
    with open(path, 'rb') as file:
        if file.peek(2)[:2] in _DECOMPRESSORS:
            yield from _members(file)
            return
        with open_tar('r:', fileobj=file) as archive:
            for member in files_of(archive):
                yield member.name, _Stored(path, member.offset_data, member.size)


def _members_of_stream(shard: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of members."""
    source = _webdataset().gopen(shard)
    # webdataset looks at a command's status at every read, so that the end of what it wrote would
    # be lost sometimes; here only at its end. If training ends before, nobody looks.
    stream = getattr(source, 'stream', source)
    yield from _members(stream)
    # Padding behind the archive, in which a command must not be cut off either.
    while stream.read(_BLOCK):
        pass
    source.close()  # raises if the command has failed


def _members(stream: BufferedReader) -> Iterator[tuple[str, bytes]]:
    decompress = _DECOMPRESSORS.get(stream.peek(2)[:2])
    with open_tar('r|', fileobj=decompress(stream) if decompress else stream) as archive:
        for member in files_of(archive):
            yield member.name, archive.extractfile(member).read()


def _content(member: bytes | _Stored) -> bytes:
    return member.read() if isinstance(member, _Stored) else member


def _reason(error: Exception) -> str:
    """Text of an error, the same every time that it occurs.

    webdataset adds its objects to the text of a command that failed, differently where it fails.
    """
    text = next((part for part in error.args if isinstance(part, str)), type(error).__name__)
    status = re.search(r'\bexit -?\d+', text)
    return status.group() if status else text
