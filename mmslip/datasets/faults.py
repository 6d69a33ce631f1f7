"""What to do about samples that cannot be read."""

import json
import os
from pathlib import Path

from mmengine.logging import print_log

__all__ = ['BadSampleError', 'BadSamples', 'MissingImageError']

# Log lines of one process; every bad sample is listed in the file all the same.
_MAX_LINES = 20
# Visits before the share is judged.
_MIN_VISITS = 200


class BadSampleError(ValueError):
    """A sample is unusable through a fault of the data; the message names it and the remedy."""


class MissingImageError(BadSampleError, FileNotFoundError):
    """The image file of a sample does not exist."""


class BadSamples:
    """Counts a data set's bad samples, lists each of them once, and stops a run that has too many.

    A copy lives in every worker of every process: each judges the share among its own visits, and
    all append to one file.

    Args:
        max_share: Largest tolerated share of visits that needed another sample; 0 tolerates none.
    """

    def __init__(self, max_share: float) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f'max_bad_share must be in [0, 1], not {max_share}.')
        self.max_share = max_share
        # File of the list; `BadSampleHook` sets it before the workers start.
        self.path: Path | None = None
        self.visits = 0
        self.replaced = 0
        self.last: Exception | None = None  # why the last of them did
        self._listed: set[str] = set()
        self._read = 0

    def add(self, index: int | None, error: Exception) -> None:
        """Log and list one bad sample, unless that has been done, by whichever process.

        Args:
            index: Its index; ``None`` in a stream, whose samples the error alone identifies.
            error: What is wrong with it.
        """
        line = json.dumps(dict(index=index, error=str(error)), ensure_ascii=False)
        self._catch_up()
        if line in self._listed:
            return
        self._listed.add(line)
        if self.path is not None:
            # One write to a descriptor in append mode: lines of several processes do not mix.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, f'{line}\n'.encode())
            finally:
                os.close(descriptor)
        if len(self._listed) <= _MAX_LINES:
            where = f'; all are listed in {self.path}' if self.path else ''
            print_log(f'Bad sample replaced{where}: {error}', logger='current', level=30)

    def _catch_up(self) -> None:
        """Take note of what other processes, or an earlier run in this folder, have listed."""
        if self.path is not None and self.path.is_file():
            with self.path.open('rb') as file:
                file.seek(self._read)
                lines = file.read().decode('utf-8').splitlines(keepends=True)
            whole = [line for line in lines if line.endswith('\n')]
            self._read += sum(len(line.encode()) for line in whole)
            self._listed.update(line.rstrip('\n') for line in whole)

    def count(self, error: Exception | None) -> None:
        """Count a visit that succeeded, or that needed another sample because of ``error``.

        Raises:
            RuntimeError: The share of the latter is above the limit.
        """
        self.visits += 1
        if error is None:
            return
        self.replaced += 1
        self.last = error
        # Four standard deviations of room: among hundreds of workers, chance alone must stop none.
        expected = self.max_share * self.visits
        if self.visits >= _MIN_VISITS and self.replaced > expected + 4 * expected**0.5:
            where = f'They are listed in {self.path}. ' if self.path else ''
            raise RuntimeError(
                f'{self.replaced} of {self.visits} samples could not be read, more than '
                f'max_bad_share={self.max_share:g} of the data set allows. {where}Repair or remove '
                f'them, or raise that limit. The last one: {error}'
            ) from error
