"""One run at a time in a work folder."""

import logging
import os
from pathlib import Path

from mmengine.logging import print_log

from mmslip.utils import FileLock

__all__ = ['lock_work_dir', 'unlock_work_dir']

# By process and folder: a run that ended in an error leaves its lock to the next of its process.
_locks: dict[tuple[int, Path], FileLock] = {}


def lock_work_dir(folder: str | Path) -> None:
    """Keep other runs out of a folder until this run or its process ends.

    Two runs would remove each other's half-written files and mix their checkpoints.

    Raises:
        RuntimeError: Another run is training there; the message says which.
    """
    key = os.getpid(), Path(folder).absolute()
    if key in _locks:
        return
    lock = FileLock(key[1] / 'run.lock', f'training in {folder}')
    try:
        held = lock.acquire()
    except RuntimeError as error:
        raise RuntimeError(f'{error} Or give this run a --work-dir of its own.') from None
    if held:
        _locks[key] = lock
    else:
        message = f'The file system of {folder} has no locks: nothing keeps a second run out of it.'
        print_log(message, 'current', level=logging.WARNING)


def unlock_work_dir(folder: str | Path) -> None:
    """Let other runs into the folder."""
    lock = _locks.pop((os.getpid(), Path(folder).absolute()), None)
    if lock is not None:
        lock.release()
