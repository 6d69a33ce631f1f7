"""Samples that cannot be read: counted, listed, and bounded."""

import json
import os
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

__all__ = ['BadSampleError', 'BadSamples', 'MissingImageError', 'Share']

# Log lines of one process; every bad sample is listed in the file all the same.
_MAX_LINES = 20
# Visits and shards before their share is judged.
_MIN_VISITS, _MIN_SHARDS = 200, 4
# Workers of a process that have counts of their own; further ones share them.
_WORKERS = 64


class BadSampleError(ValueError):
    """A sample is unusable through a fault of the data; the message names it and the remedy."""


class MissingImageError(BadSampleError, FileNotFoundError):
    """The image file of a sample does not exist."""


class Share:
    """Counts of attempts and failures of a process and its workers, with a limit.

    The counts lie in memory that workers share with the process which starts them, so they go on
    when workers end with an epoch and others begin. A copy counts anew.

    Args:
        limit: Largest tolerated share.
        at_least: Attempts before the share is judged.
    """

    def __init__(self, limit: float, at_least: int) -> None:
        self.limit = limit
        self.at_least = at_least
        # A row for each worker, which alone writes to it: attempts, failures.
        self._counts = torch.zeros(_WORKERS, 2, dtype=torch.int64).share_memory_()

    def __deepcopy__(self, memo: dict) -> 'Share':
        return Share(self.limit, self.at_least)

    @property
    def attempts(self) -> int:
        """Number of attempts."""
        return int(self._counts[:, 0].sum())

    @property
    def failures(self) -> int:
        """Number of failures."""
        return int(self._counts[:, 1].sum())

    def count(self, failed: bool) -> bool:
        """Count an attempt.

        Returns:
            Whether it failed, as clearly too many have done. Four standard deviations of room are
            left: in hundreds of processes, chance alone must stop none.
        """
        worker = get_worker_info()
        row = self._counts[worker.id % _WORKERS if worker else 0]
        row[0] += 1
        if not failed:
            return False
        row[1] += 1
        attempts = self.attempts
        expected = self.limit * attempts
        return attempts >= self.at_least and self.failures > expected + 4 * expected**0.5


class BadSamples:
    """Counts a data set's bad samples, lists each of them once, and stops a run that has too many.

    Every process judges the share among its own visits, and all append to one file.

    Args:
        max_share: Largest tolerated share of visits that needed another sample; 0 tolerates none.
        max_lost_shards: The same of the shards of a stream that cannot be read to their end.
    """

    def __init__(self, max_share: float, max_lost_shards: float = 0.05) -> None:
        for name, share in dict(max_bad_share=max_share, max_lost_shards=max_lost_shards).items():
            if not 0 <= share <= 1:
                raise ValueError(f'{name} must be in [0, 1], not {share}.')
        self.max_share = max_share
        # File of the list; `BadSampleHook` sets it before the workers start.
        self.path: Path | None = None
        self.last: Exception | None = None  # why the last visit or shard failed that did
        self._samples = Share(max_share, _MIN_VISITS)
        self._shards = Share(max_lost_shards, _MIN_SHARDS)
        self._listed: set[bytes] = set()
        self._read = 0

    @property
    def visits(self) -> int:
        """Number of samples that were wanted."""
        return self._samples.attempts

    @property
    def replaced(self) -> int:
        """Number of these that needed another one."""
        return self._samples.failures

    @property
    def lost_shards(self) -> int:
        """Number of shards that could not be read to their end."""
        return self._shards.failures

    def add(self, index: int | None, error: Exception) -> None:
        """Log and list one bad sample, unless that has been done, by whichever process.

        Args:
            index: Its index; ``None`` in a stream, whose samples the error alone identifies.
            error: What is wrong with it.
        """
        # In ASCII: names of files need not be UTF-8, and may hold ends of lines.
        line = json.dumps(dict(index=index, error=str(error))).encode()
        self._catch_up()
        if line in self._listed:
            return
        self._listed.add(line)
        if self.path is not None:
            self._append(line)
        if len(self._listed) <= _MAX_LINES:
            where = f'; all are listed in {self.path}' if self.path else ''
            text = str(error).encode(errors='backslashreplace').decode()
            print_log(f'Bad sample replaced{where}: {text}', logger='current', level=30)

    def _append(self, line: bytes) -> None:
        # One write to a descriptor in append mode: lines of several processes do not mix.
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # A run that was killed may have left part of a line.
            torn = size and os.pread(descriptor, 1, size - 1) != b'\n'
            os.write(descriptor, b'\n' * bool(torn) + line + b'\n')
        finally:
            os.close(descriptor)

    def _catch_up(self) -> None:
        """Take note of what other processes, or an earlier run in this folder, have listed."""
        if self.path is not None and self.path.is_file():
            with self.path.open('rb') as file:
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b'\n')
            self._read += len(whole)
            self._listed.update(whole.split(b'\n'))

    def count(self, error: Exception | None) -> None:
        """Count a visit that succeeded, or that needed another sample because of ``error``.

        Raises:
            RuntimeError: The share of the latter is above the limit.
        """
        self.last = error or self.last
        if self._samples.count(error is not None):
            where = f'They are listed in {self.path}. ' if self.path else ''
            raise RuntimeError(
                f'{self.replaced} of {self.visits} samples could not be read, more than '
                f'max_bad_share={self.max_share:g} of the data set allows. {where}Repair or remove '
                f'them, or raise that limit. The last one: {error}'
            ) from error

    def count_shard(self, error: Exception | None) -> None:
        """Count a shard of a stream that was read to its end, or was not because of ``error``.

        Raises:
            RuntimeError: The share of the latter is above the limit.
        """
        self.last = error or self.last
        if self._shards.count(error is not None):
            raise RuntimeError(
                f'{self.lost_shards} of {self._shards.attempts} shards could not be read, '
                f'more than max_lost_shards={self._shards.limit:g} of the data set allows. Repair '
                f'or remove them, or raise that limit. The last one: {error}'
            ) from error
