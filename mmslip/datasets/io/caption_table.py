"""Image names and captions on disk, for more rows than Python objects can hold."""

import errno
import fcntl
import json
import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing

from mmslip.datasets.io.json_text import parse_json
from mmslip.datasets.text.cleaning import is_blank

__all__ = ['CaptionTable', 'CaptionTableWriter']

_FORMAT, _VERSION = 'mmslip.CaptionTable', 1
_META, _ENDS, _TEXT = 'meta.json', 'ends.u64', 'text.utf8'
_END = struct.Struct('<Q')
_PAIR = struct.Struct('<QQ')
# Never part of UTF-8, so it separates texts of any content.
_SEPARATOR = b'\xff'


class CaptionTable(Sequence):
    """Read-only rows of an image key and its captions, if any, in a folder of three files.

    ``text.utf8`` holds the rows one after the other, the texts of a row separated by a byte 0xFF (a
    row without captions has an empty one);
    ``ends.u64`` holds ``rows + 1`` little-endian integers, where each row ends (and the next one
    starts); ``meta.json`` says version and sizes. Row ``i`` is two positioned reads, which share no
    state: workers may inherit an open table through a fork, and a pickled one opens its files again
    (its path has to be valid there). Nothing is mapped into the process, so however many rows are
    visited, they live in the page cache of the system, once for all processes.

    Args:
        path: Folder of the table.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: A file is damaged, cut short, or of another version; the message names it.

    Example:
        >>> table = CaptionTable.write('pairs', [('a.jpg', ['a red chair', 'furniture'])])
        >>> len(table), table[0]
        (1, ('a.jpg', ['a red chair', 'furniture']))
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files: list[int] = []
        meta = self._read_meta()
        self._rows, self._bytes = meta['rows'], meta['bytes']
        sizes = {_ENDS: _END.size * (self._rows + 1), _TEXT: self._bytes}
        for name, expected in sizes.items():
            self._files.append(self._open(name, expected))
        self._ends, self._text = self._files
        (last,) = _END.unpack(os.pread(self._ends, _END.size, _END.size * self._rows))
        if last != self._bytes:
            raise self._damaged(_ENDS, f'its last row ends at byte {last} of {self._bytes}')

    def _read_meta(self) -> dict:
        file = self.path / _META
        if not file.is_file():
            raise FileNotFoundError(
                f'There is no caption table {self.path} (no {file}): check the path, or make the '
                'table with a script of tools/dataset_converters.'
            )
        try:
            meta = parse_json(file.read_bytes(), str(file))
            kind, version = meta['format'], meta['version']
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(_META, f'{type(error).__name__}: {error}') from error
        if (kind, version) != (_FORMAT, _VERSION):
            raise ValueError(
                f'{file} is {kind!r} of version {version!r}; this mmslip reads {_FORMAT!r} of '
                f'version {_VERSION}: make the table again with tools/dataset_converters.'
            )
        counts = [meta.get('rows'), meta.get('bytes')]
        if not all(isinstance(count, int) and count > 0 for count in counts):
            raise self._damaged(_META, f'rows and bytes are {counts}')
        return meta

    def _open(self, name: str, expected: int) -> int:
        """Descriptor of a file that has the size it should have."""
        try:
            size = (self.path / name).stat().st_size
        except FileNotFoundError as error:
            raise self._damaged(name, 'it is missing') from error
        if size != expected:
            raise self._damaged(name, f'it has {size} bytes instead of {expected}')
        return os.open(self.path / name, os.O_RDONLY)

    def _damaged(self, name: str, what: str) -> ValueError:
        return ValueError(f'{self.path / name} is damaged ({what}): copy or make the table again.')

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> tuple[str, list[str]]:
        """Key and captions of a row."""
        row = index + self._rows if index < 0 else index
        if not 0 <= row < self._rows:
            raise IndexError(f'Row {index} of {self.path}, which has {self._rows} rows.')
        ends = os.pread(self._ends, _PAIR.size, _END.size * row)
        start, end = _PAIR.unpack(ends) if len(ends) == _PAIR.size else (0, 0)
        if not start < end <= self._bytes:
            raise self._damaged(_ENDS, f'row {row} spans bytes {start} to {end}')
        content = os.pread(self._text, end - start, start)
        try:
            key, *captions = (text.decode() for text in content.split(_SEPARATOR))
        except UnicodeDecodeError as error:
            raise self._damaged(_TEXT, f'row {row}: {error}') from error
        if len(content) != end - start or not captions:
            raise self._damaged(_TEXT, f'row {row} is incomplete')
        return key, captions if captions != [''] else []

    def __reduce__(self) -> tuple:
        """Pickle as the path: descriptors mean nothing in another process."""
        return type(self), (self.path,)

    def __del__(self) -> None:
        for descriptor in getattr(self, '_files', []):
            os.close(descriptor)

    @classmethod
    def write(
        cls, path: str | Path, rows: Iterable[tuple[str, Sequence[str]]], **notes: object
    ) -> 'CaptionTable':
        """Write a table of any length in constant memory, and open it.

        Args:
            path: Folder to make, which is not there before it is whole.
            rows: Key and captions of every row; generators are fine.
            **notes: Kept under ``notes`` in ``meta.json``, such as where the rows come from.

        Raises:
            FileExistsError: There is such a folder, or another process is writing it.
            ValueError: There are no rows, or one has no key or a blank caption.
        """
        with CaptionTableWriter(path, **notes) as writer:
            for key, captions in rows:
                writer.add(key, captions)
        return cls(path)


class CaptionTableWriter:
    """Writes a :class:`CaptionTable` row by row, and may go on after an interruption.

    The files grow in ``PATH.partial``, which is renamed when the ``with`` block ends, so there is
    never a half table under ``path``. If the block ends with an error, the partial table stays if
    :meth:`save` was called, and is removed otherwise.

    Args:
        path: Folder to make.
        resume: Go on with a partial table from where it was saved last, rather than anew.
        **notes: Kept under ``notes`` in ``meta.json``.

    Attributes:
        partial: Folder of the unfinished table.
        state: What was saved beside the rows that are there already; empty where there are none.

    Raises:
        FileExistsError: There is a table of this name, or another process is writing it.

    Example:
        >>> with CaptionTableWriter('pairs', resume=True) as writer:
        ...     for number in range(int(writer.state.get('done', 0)), 1000):
        ...         writer.add(f'{number}.jpg', ['a picture'])
        ...         if number % 100 == 99:
        ...             writer.save(done=number + 1)
    """

    def __init__(self, path: str | Path, resume: bool = False, **notes: object) -> None:
        self.path, self.notes = Path(path), notes
        self.partial = self.path.with_name(self.path.name + '.partial')
        self.state: dict[str, np.ndarray] = {}
        self._rows = self._bytes = 0
        self._progress = self.partial / 'progress.npz'
        if self.path.exists():
            raise FileExistsError(f'{path} exists: remove it, or choose another path.')
        self.partial.mkdir(parents=True, exist_ok=True)
        self._text = (self.partial / _TEXT).open('ab', buffering=1 << 20)
        _lock(self._text.fileno(), f'Another process is writing {self.partial}: wait for it.')
        self._ends = (self.partial / _ENDS).open('ab', buffering=1 << 20)
        if resume and self._progress.is_file():
            with np.load(self._progress) as saved:
                self.state = dict(saved)
            self._rows, self._bytes = (int(self.state.pop(key)) for key in ('_rows', '_bytes'))
        else:
            self._progress.unlink(missing_ok=True)
        self._text.truncate(self._bytes)
        self._ends.truncate(_END.size * (self._rows + 1) if self._rows else 0)
        if not self._rows:
            self._ends.write(_END.pack(0))

    def add(self, key: str, captions: Sequence[str]) -> None:
        """Append a row.

        Raises:
            ValueError: It has no key, or a blank caption.
        """
        content = _encode(key, captions, self._rows)
        self._rows, self._bytes = self._rows + 1, self._bytes + len(content)
        self._text.write(content)
        self._ends.write(_END.pack(self._bytes))

    def save(self, **state: np.typing.ArrayLike) -> None:
        """Let what has been added so far survive an interruption, and ``state`` with it."""
        self._flush()
        new = self._progress.with_suffix('.new')
        with new.open('wb') as file:
            np.savez(file, _rows=self._rows, _bytes=self._bytes, **state)
        os.replace(new, self._progress)

    def _flush(self) -> None:
        for file in (self._text, self._ends):
            file.flush()
            os.fsync(file.fileno())

    def _finish(self) -> None:
        if not self._rows:
            raise ValueError('A caption table needs at least one row; there is none to write.')
        self._flush()
        meta = dict(
            format=_FORMAT, version=_VERSION, rows=self._rows, bytes=self._bytes, notes=self.notes
        )
        (self.partial / _META).write_text(json.dumps(meta, indent=1) + '\n', encoding='utf-8')
        _rename(self.partial, self.path)
        (self.path / self._progress.name).unlink(missing_ok=True)

    def __enter__(self) -> 'CaptionTableWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self.partial.exists() and not self._progress.exists():
                shutil.rmtree(self.partial, ignore_errors=True)
            self._text.close()
            self._ends.close()


def _lock(descriptor: int, message: str) -> None:
    """Claim an open file until it is closed, also by a crash."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileExistsError(message) from None
    except OSError:  # a file system without locks
        pass


def _encode(key: str, captions: Sequence[str], row: int) -> bytes:
    """Bytes of a row."""
    if isinstance(captions, str):
        raise ValueError(f'Row {row} ({key!r}) needs a list of captions: {captions!r:.200}.')
    if not all(isinstance(text, str) and not is_blank(text) for text in (key, *captions)):
        raise ValueError(
            f'Row {row} has a key or caption that is blank or no text: {[key, *captions]!r:.200}'
        )
    texts = [key, *captions] if captions else [key, '']
    try:
        return _SEPARATOR.join([text.encode() for text in texts])
    except UnicodeEncodeError as error:
        raise ValueError(f'Row {row} ({key!r}) cannot be written as UTF-8: {error}.') from error


def _rename(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise FileExistsError(f'{path} appeared while it was written: remove one.') from error
