"""Pairs streamed from tar shards that need not lie on this machine."""

import random
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from braceexpand import braceexpand
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info
from torch.utils.data import IterableDataset, get_worker_info

from mmslip.datasets.base import check_captions
from mmslip.datasets.faults import BadSampleError, BadSamples
from mmslip.datasets.shards import choose_members, parse_captions, read_content
from mmslip.registry import DATASETS
from mmslip.utils import mix_seed, seeded

__all__ = ['StreamDataset']

_BLOCK = 2**16  # bytes


class _Raw(NamedTuple):
    """A sample as it is stored, on its way through the shuffle buffer."""

    epoch: int
    shard: int
    stem: str
    parts: dict[str, bytes]


@DATASETS.register_module()
class StreamDataset(IterableDataset):
    """Tar shards read from beginning to end, over and over: from a disk, a server or a command.

    The samples are those of :class:`mmslip.datasets.ShardDataset`, which is to be preferred where
    the shards lie on a file system; the members of a sample must stand next to each other. In every
    epoch the shards are shuffled anew, by seed and epoch, and split over processes and workers.
    Their samples pass a shuffle buffer, which goes on over the ends of shards and epochs.

    Less is guaranteed than for other data sets:

    - The order depends on the number of processes and workers, so that it is reproducible only with
      the same ones; the views cut from a sample depend on seed, epoch and sample alone.
    - A run cannot be resumed at its sample. It goes on in another order.
    - Shards differ in length, so some processes are in a later epoch than others, and a sample may
      come again before another has come once. As the stream has no end, none runs dry.
    - Order is random only within the buffer and between shards.

    A sample that cannot be read is skipped and counted as :class:`BadSamples` says. A shard that
    cannot be read, or not to its end, counts as one such sample.

    Train with the iteration loop, ``train_cfg=dict(by_epoch=False, max_iters=...)``, and
    ``sampler=None`` in the data loader.

    Args:
        shards: Paths, URLs (``https://...``) or shell commands that write a shard to their standard
            output (``pipe:aws s3 cp s3://bucket/{000..127}.tar -``), with ranges in braces.
        length: Samples in an epoch, over all processes. The stream does not end there: schedules
            and logs of mmengine count epochs by it.
        caption_keys: Keys of captions in the ``.json`` member; values are texts or lists of texts.
        pipeline: Transforms.
        shuffle_buffer: Samples, still encoded, among which each worker draws the next one.
        seed: Seed of the order and of the views.
        max_bad_share: Training stops where more than this share of the samples is bad; 0 raises at
            the first.

    Raises:
        ImportError: ``webdataset`` is not installed.
        FileNotFoundError: A shard given as a path does not exist.
        ValueError: There are fewer shards than workers of all processes, or none can be read.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        length: int,
        caption_keys: str | Sequence[str] = 'caption',
        pipeline: Sequence[dict] = (),
        shuffle_buffer: int = 1000,
        seed: int = 0,
        max_bad_share: float = 0.01,
    ) -> None:
        _webdataset()  # better missed here than in a worker
        patterns = [shards] if isinstance(shards, str) else shards
        self.shards = [shard for pattern in patterns for shard in braceexpand(pattern)]
        for shard in self.shards:
            if not urlparse(shard).scheme and not Path(shard).is_file():
                raise FileNotFoundError(f'There is no shard {shard}: check `shards`.')
        if length < 1 or length != int(length):
            raise ValueError(f'length must be the number of samples in an epoch, not {length}.')
        self.length = int(length)
        self.caption_keys = [caption_keys] if isinstance(caption_keys, str) else list(caption_keys)
        self.pipeline = Compose(pipeline)
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.bad_samples = BadSamples(max_bad_share)
        self.metainfo: dict = {}
        # Asked here, since a spawned worker knows nothing of the process group.
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Samples of this process in an epoch, from which mmengine counts its steps."""
        return self.length // self.world_size

    def __iter__(self) -> Iterator[Any]:
        """Items without end."""
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        readers, reader = workers * self.world_size, workers * self.rank + number
        if len(self.shards) < readers:
            raise ValueError(
                f'{len(self.shards)} shards cannot be split over {self.world_size} processes with '
                f'{workers} workers each: lower `num_workers` or write more, smaller shards.'
            )
        draws = random.Random(mix_seed(self.seed, 0, reader))
        shuffle = _webdataset().shuffle(self.shuffle_buffer, rng=draws)
        for sample in shuffle(self._samples(readers, reader)):
            name = f'{self.shards[sample.shard]}:{sample.stem}'
            try:
                with seeded(mix_seed(self.seed, sample.epoch, zlib.crc32(name.encode()))):
                    item = self.pipeline(self._info(sample, name))
            except (BadSampleError, OSError) as error:
                self._skip(error)
            else:
                self.bad_samples.count(None)
                yield item

    def _samples(self, readers: int, reader: int) -> Iterator[_Raw]:
        """Samples of one worker, epoch after epoch."""
        for epoch in count():
            order = list(range(len(self.shards)))
            random.Random(mix_seed(self.seed, epoch)).shuffle(order)
            found = False
            for shard in order[reader::readers]:
                try:
                    for stem, parts in _read_shard(self.shards[shard]):
                        found = True
                        yield _Raw(epoch, shard, stem, parts)
                except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
                    self._skip(
                        BadSampleError(
                            f'{self.shards[shard]} cannot be read, or not to its end '
                            f'({_reason(error)}): make or copy it again, or leave it out.'
                        )
                    )
            if not found:  # without which this would go round for ever
                raise ValueError(
                    f'None of {len(order[reader::readers])} shards has a sample that can be read, '
                    f'such as {self.shards[order[reader]]}: check `shards`.'
                )

    def _info(self, sample: _Raw, name: str) -> dict:
        """What enters the pipeline."""
        try:
            image, text = choose_members(sample.parts, name)
            content = read_content(sample.parts[text], text == 'json', name)
            captions = parse_captions(content, self.caption_keys, name)
        except ValueError as error:
            raise BadSampleError(str(error)) from error
        info = dict(
            text=captions, img_bytes=sample.parts[image], img_name=name, sample_idx=sample.stem
        )
        check_captions(info, sample.stem)
        return info

    def _skip(self, error: Exception) -> None:
        if not self.bad_samples.max_share:
            raise error
        self.bad_samples.add(None, error)
        self.bad_samples.count(error)


def _webdataset() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise ImportError(
            "StreamDataset needs webdataset: pip install 'webdataset>=0.2.86' (or "
            "'mmslip[stream]')."
        ) from error
    return webdataset


def _read_shard(shard: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Stem and members, by suffix, of one sample after the other."""
    webdataset = _webdataset()
    # Closed here only if all went well: that the end of training cuts a command off is no failure.
    stream = webdataset.gopen(shard)
    # webdataset groups by the name before its first dot, ShardDataset before its last one.
    files = webdataset.tariterators.tar_file_iterator(stream)
    for stem, members in groupby(files, lambda file: file['fname'].rpartition('.')[0]):
        yield stem, {file['fname'].rpartition('.')[2].lower(): file['data'] for file in members}
    # Padding behind the archive, in which a command must not be cut off either.
    while stream.read(_BLOCK):
        pass
    stream.close()  # raises if the command has failed


def _reason(error: Exception) -> str:
    """What an error says, in the same words every time.

    webdataset adds its objects to the text of a command that failed, differently where it fails.
    """
    text = next((part for part in error.args if isinstance(part, str)), type(error).__name__)
    status = re.search(r'\bexit -?\d+', text)
    return status.group() if status else text
