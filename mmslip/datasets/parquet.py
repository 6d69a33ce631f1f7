"""Images and captions inside Parquet files, as on the Hugging Face hub."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import force_full_init

from mmslip.datasets.base import CaptionedDataset
from mmslip.datasets.io.captions import as_list, text_of
from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.io.patterns import expand_patterns
from mmslip.registry import DATASETS

__all__ = ['ParquetDataset']


@DATASETS.register_module()
class ParquetDataset(CaptionedDataset):
    """Parquet files with embedded images, read at random.

    The image column is ``struct<bytes, path>``, as the ``datasets`` library writes it, or plain
    binary. Only the files' footers are read beforehand. A sample is found in its row group, which
    is the smallest part of a file that can be read: a shuffled visit costs reading a whole one, so
    files with groups of a hundred images or more suit a fast local disk, or should be written again
    with ``row_group_size=10`` or so. Nothing is open before the first visit of a process, so
    workers may be forked or spawned.

    Args:
        files: Paths, with ``*`` as in a shell; relative to ``data_root``.
        data_root: Folder that ``files`` are relative to.
        image_key: Column of images.
        caption_keys: Columns of captions, texts or lists of texts. Where a row has several, one is
            drawn at every visit.
        **kwargs: Arguments of :class:`CaptionedDataset` (``captions`` above all) and of mmengine's
            ``BaseDataset``.

    Raises:
        ImportError: ``pyarrow`` is not installed.
        FileNotFoundError: A pattern matches no file.
        ValueError: A file is damaged or lacks a column, or a row its image or caption; the message
            names file and row.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        data_root: str = '',
        image_key: str = 'image',
        caption_keys: str | Sequence[str] = 'caption',
        **kwargs: object,
    ) -> None:
        self.image_key = image_key
        self.caption_keys = as_list(caption_keys)
        self.files = [str(path) for path in expand_patterns(files, data_root, 'files')]
        super().__init__(
            data_root=data_root,
            serialize_data=False,  # nothing is held but numbers of rows
            **kwargs,
        )

    @property
    def _columns(self) -> tuple[str, ...]:
        """The columns that are read, that of images first."""
        return self.image_key, *(() if self.captions == 'ignored' else self.caption_keys)

    def load_data_list(self) -> range:
        """Count the rows of all groups."""
        groups = []
        for number, path in enumerate(self.files):
            metadata = _damage_named(path, lambda path=path: _parquet().read_metadata(path))
            self._check_columns(path, metadata.schema.to_arrow_schema())
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            groups += [(number, group, size) for group, size in enumerate(sizes)]
        # (G, 3): file, group within the file, end among the rows of all files
        self._groups = np.array(groups, np.int64).reshape(-1, 3)
        self._groups[:, 2] = self._groups[:, 2].cumsum()
        if not groups or not self._groups[-1, 2]:
            raise ValueError(f'{self.files[0]} has no rows, nor has any other of `files`.')
        return range(int(self._groups[-1, 2]))

    @property
    @force_full_init
    def group_size(self) -> int:
        """Rows of the largest row group, which is read whole for a sample."""
        return int(np.diff(self._groups[:, 2], prepend=0).max())

    def schema(self) -> Any:
        """Arrow's schema of the first file."""
        path = self.files[0]
        return _damage_named(path, lambda: _parquet().read_schema(path))

    def _check_columns(self, path: str, schema: Any) -> None:
        for key in self._columns:
            if schema.names.count(key) > 1:
                raise ValueError(
                    f'{path} has more than one column {key!r}: rename them, and list them all in '
                    '`caption_keys` if they are captions.'
                )
            if key not in schema.names:
                raise ValueError(
                    f'{path} has no column {key!r}; it has {", ".join(map(repr, schema.names))}. '
                    'Set `image_key` and `caption_keys` of the data set to its names.'
                )

    def get_data_info(self, idx: int) -> dict:
        """Read one sample's bytes and captions."""
        path, group, offset = self._locate(idx)
        columns, where = self._columns, f'{path}, row {offset} of group {group}'
        table = _damage_named(path, lambda: _read_group(path, group, columns, os.getpid()))
        try:
            values = {key: table[key][offset].as_py() for key in columns}
        except ValueError as error:
            raise BadSampleError(f'{where} holds text that is not UTF-8: {error}.') from error
        image = values.pop(self.image_key)
        return dict(
            text_of(values, columns[1:], where, self.captions),
            img_bytes=self._image(image, where),
            img_name=f'{path}:{group}:{offset}',
            sample_idx=range(len(self))[idx],
        )

    def identify(self, index: int) -> str:
        """Place of a sample, and name and size of its file: to read a row takes its whole group."""
        path, group, offset = self._locate(index)
        return f'{Path(path).name} {os.path.getsize(path)} {group} {offset}'

    identify_image = identify

    @force_full_init
    def _locate(self, index: int) -> tuple[str, int, int]:
        """File, row group and row within it of a sample."""
        row = self.data_list[index]
        place = int(np.searchsorted(self._groups[:, 2], row, side='right'))
        file, group, _ = self._groups[place].tolist()
        start = int(self._groups[place - 1, 2]) if place else 0
        return self.files[file], group, row - start

    def _image(self, value: object, where: str) -> bytes:
        content = value.get('bytes') if isinstance(value, dict) else value
        if isinstance(content, bytes) and content:
            return content
        path = value.get('path') if isinstance(value, dict) else None
        held = f'the path {path!r}' if path else f'{value!r:.60}'
        raise ValueError(
            f'{where}: {self.image_key!r} holds {held} but no bytes of an image: write the files '
            'with embedded images, or remove the row.'
        )


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "ParquetDataset needs pyarrow: pip install 'pyarrow>=14' (or 'mmslip[parquet]')."
        ) from error
    return parquet


def _damage_named(path: str, read: Callable[[], Any]) -> Any:
    """Result of ``read``, or an error that names the file."""
    try:
        return read()
    except (ValueError, OSError) as error:  # of which Arrow's own errors are kinds
        raise ValueError(
            f'{path} is damaged or not a Parquet file ({error}): copy or download it again.'
        ) from error


# The process is part of the key: a forked worker must not use a file that its parent has opened,
# since they would share its position. Threads of Arrow do not survive a fork, so none are used.
@lru_cache(maxsize=16)
def _open(path: str, process: int) -> Any:
    return _parquet().ParquetFile(path, pre_buffer=False)


@lru_cache(maxsize=2)  # serves reading in order; at random, hardly any size would
def _read_group(path: str, group: int, columns: tuple[str, ...], process: int) -> Any:
    return _open(path, process).read_row_group(group, columns=list(columns), use_threads=False)
