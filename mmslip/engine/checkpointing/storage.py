"""Files that are whole or absent, whenever the process or the machine dies."""

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from mmslip.utils import whole_file

__all__ = ['AtomicBackend', 'remove_unfinished', 'wait_for_writes']

# mmengine makes a new backend for every file, so what lasts between files is kept here.
_doomed: set[Path] = set()
_writing: '_Writing | None' = None


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files, replaced in one step once their content is on the disk.

    ``CheckpointHook(backend_args=dict(backend='atomic'))`` saves with it. A file gets another name
    first; it is flushed to the disk before it takes its own, and the folder afterwards. mmengine
    removes outdated and surpassed checkpoints *before* it saves what takes their place: here they
    go when the next file is whole.

    Args:
        background: Return from :meth:`put` at once and write in a thread, while training goes on.
            The state has been copied to memory by then. One file is written at a time: the next
            call waits for the one before. If that could not be written, the next is tried at once,
            since others may have made room on the disk; :func:`wait_for_writes` raises what went
            wrong.
    """

    def __init__(self, background: bool = False) -> None:
        self.background = background

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file.

        Raises:
            OSError: It could not be written, perhaps because the disk is full. Earlier files are
                untouched.
        """
        global _writing
        failed = _end_writing()
        writing = _Writing(obj, Path(filepath).absolute())
        if self.background and not failed:
            _writing = writing
            writing.start()
        else:
            writing.run()
            writing.finish()

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file; see :meth:`put`."""
        self.put(obj.encode(encoding), filepath)

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is a file, or will be when the writing has ended."""
        if _writing is not None:
            _writing.join()
        return super().isfile(filepath)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file once the next one is whole."""
        _doomed.add(Path(filepath).absolute())


def wait_for_writes() -> None:
    """Wait for the file that is being written in the background.

    Raises:
        OSError: It could not be written.
    """
    if failed := _end_writing():
        failed.finish()


def _end_writing() -> '_Writing | None':
    """Wait for the file that is being written, and return it if that has failed."""
    global _writing
    writing, _writing = _writing, None
    if writing is not None:
        writing.join()
    return writing if writing is not None and writing.error is not None else None


def remove_unfinished(folder: str | Path) -> None:
    """Remove what a killed run has left half-written in a folder."""
    for path in Path(folder).glob('.*.part*'):  # as whole_file names it
        path.unlink(missing_ok=True)


class _Writing(threading.Thread):
    """The writing of one file, which Python waits for when it ends."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(name=f'writing {path.name}')
        self.content, self.path = content, path
        self.error: OSError | None = None
        # Files whose removal was asked for before this one came. Where it has the name of one of
        # them, it takes that one's place and must stay.
        self.outdated = _doomed - {path}
        _doomed.clear()

    def run(self) -> None:
        """Write, then remove what is outdated."""
        try:
            with whole_file(self.path) as part:
                part.write_bytes(self.content)
            _sync_folder(self.path.parent)
            for old in self.outdated:
                old.unlink(missing_ok=True)
        except OSError as error:
            message = (
                f'{self.path} could not be written ({error.strerror}); earlier checkpoints are '
                'untouched. Free space or mend the disk'
            )
            # At once: in the background nobody may be there any more to meet the exception.
            print_log(f'{message}.', 'current', level=logging.ERROR)
            self.error = OSError(error.errno, f'{message}, then go on with --resume.')
        finally:
            del self.content  # as large as the model and its optimiser state

    def finish(self) -> None:
        """Raise what went wrong."""
        if self.error is not None:
            raise self.error


def _sync_folder(folder: Path) -> None:
    """Make a new name last; a file system that cannot do this does not need it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
