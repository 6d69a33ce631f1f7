"""Image names and captions on disk, for more rows than Python objects can hold."""

import errno
import json
import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ['CaptionTable']

_FORMAT, _VERSION = 'mmslip.CaptionTable', 1
_META, _ENDS, _TEXT = 'meta.json', 'ends.u64', 'text.utf8'
_END = struct.Struct('<Q')
_PAIR = struct.Struct('<QQ')
# Never part of UTF-8, so it separates texts of any content.
_SEPARATOR = b'\xff'


class CaptionTable(Sequence):
    """Read-only rows of an image key and its captions, in a folder of three files.

    ``text.utf8`` holds the rows one after the other, the texts of a row separated by a byte 0xFF;
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
            meta = json.loads(file.read_text(encoding='utf-8'))
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
        return key, captions

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

        The files grow in ``PATH.partial``, which is renamed at the end and removed on any error, so
        there is never a half table under ``path``.

        Args:
            path: Folder to make.
            rows: Key and captions of every row; generators are fine.
            **notes: Kept under ``notes`` in ``meta.json``, such as where the rows come from.

        Raises:
            FileExistsError: There is such a folder, or a partial one of another writer.
            ValueError: There are no rows, or one has no key, no caption, or a blank one.
        """
        path = Path(path)
        partial = path.with_name(path.name + '.partial')
        if path.exists():
            raise FileExistsError(f'{path} exists: remove it, or choose another path.')
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
        except FileExistsError:
            raise FileExistsError(
                f'{partial} exists: another process writes this table (then wait), or one was '
                'killed (then remove the folder).'
            ) from None
        try:
            _write_files(partial, rows, notes)
            _rename(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return cls(path)


def _write_files(
    folder: Path, rows: Iterable[tuple[str, Sequence[str]]], notes: dict[str, object]
) -> None:
    size, count = 0, 0
    with (
        (folder / _ENDS).open('wb', buffering=1 << 20) as ends,
        (folder / _TEXT).open('wb', buffering=1 << 20) as text,
    ):
        ends.write(_END.pack(0))
        for key, captions in rows:
            content = _encode(key, captions, count)
            size, count = size + len(content), count + 1
            text.write(content)
            ends.write(_END.pack(size))
        for file in (ends, text):
            file.flush()
            os.fsync(file.fileno())
    if not count:
        raise ValueError('A caption table needs at least one row; there is none to write.')
    meta = dict(format=_FORMAT, version=_VERSION, rows=count, bytes=size, notes=notes)
    (folder / _META).write_text(json.dumps(meta, indent=1) + '\n', encoding='utf-8')


def _encode(key: str, captions: Sequence[str], row: int) -> bytes:
    """Bytes of a row."""
    if isinstance(captions, str) or not captions:
        raise ValueError(f'Row {row} ({key!r}) needs a list of at least one caption: {captions!r}.')
    texts = [key, *captions]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f'Row {row} has a key or caption that is blank or no text: {texts!r:.200}')
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
