"""Files that one process at a time may hold."""

import errno
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path
from typing import IO

__all__ = ['FileLock']

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class FileLock:
    """The right to work on something, held by one process until it gives it back or ends.

    It is a ``flock`` of a file: the system takes it back when the process ends in whatever way.
    Forked children, such as data workers, do not hold it. Processes of other hosts are kept out
    where the file system passes locks on (NFS 4, NFS 3 with ``lockd``, Lustre mounted with
    ``flock``); there the lock of a host that has died lasts until the server gives it up. The file
    stays behind, and says in JSON who has held it last.

    Args:
        path: The file; made if it is missing.
        doing: What the holder is at, as in 'training in FOLDER'.
    """

    def __init__(self, path: str | Path, doing: str) -> None:
        self.path = Path(path)
        self.doing = doing
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Take the lock; returns False where the file system has none.

        Raises:
            RuntimeError: Another process has it; the message says which.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open('a+', encoding='utf-8')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            file.close()
            if error.errno in _NO_LOCKS:
                return False
            raise RuntimeError(
                f'Another process is {self.doing} ({holder}): wait for it, or end it.'
            ) from None
        file.truncate(0)
        note = dict(pid=os.getpid(), host=socket.gethostname(), since=time.strftime('%F %T'))
        file.write(json.dumps(note) + '\n')
        file.flush()
        self._file = file
        _held.add(self)
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> 'FileLock':
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _holder(file: IO[str]) -> str:
    try:
        file.seek(0)
        note = json.loads(file.read())
        return f'process {note["pid"]} of {note["host"]}, since {note["since"]}'
    except (OSError, ValueError, KeyError, TypeError):
        return 'it has not said which'


def _release_in_child() -> None:
    """Close what a fork has copied, or the lock would last as long as the last child."""
    for lock in _held:
        lock.release()


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()
os.register_at_fork(after_in_child=_release_in_child)
