"""Images from files, folders, tables and shards behind one interface."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmslip.datasets import (
    FolderDataset,
    ImageTextDataset,
    ParquetDataset,
    ShardDataset,
    TableDataset,
)
from mmslip.datasets.io.folder import list_images
from mmslip.datasets.io.rows import TABLE_SUFFIXES
from mmslip.registry import DATASETS

__all__ = ['ImageFiles', 'list_images', 'open_source']


class ImageFiles:
    """Image files as a data set.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict:
        """Path of one file."""
        return dict(img_path=self.paths[index], sample_idx=index)


def open_source(inputs: Any, image_root: str | Path = '') -> Any:
    """A data set of images: it has a length and ``get_data_info``.

    Args:
        inputs: An image file; a folder, with what lies below it; a table of image paths (a text
            file, see :func:`mmslip.datasets.io.rows.read_rows`, or the folder of a
            ``CaptionTable``); Parquet files or tar shards, as a pattern with ``*`` and
            ``{000..012}``; a list of image files; or the config of a data set.
        image_root: Folder that the paths in a table are relative to.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: The folder or table holds no image, or is damaged.
    """
    if isinstance(inputs, dict):
        return DATASETS.build(dict(inputs, pipeline=[]))
    if isinstance(inputs, list | tuple):
        return ImageFiles(inputs)
    path, table = Path(inputs), dict(data_prefix=dict(img_path=str(image_root)), captions='ignored')
    suffix = path.suffix.lower()
    if path.is_dir():
        if _is_caption_table(path):
            return TableDataset(str(path), **table)
        return FolderDataset(str(path))
    if suffix in ('.tar', '.tgz') or path.name.lower().endswith('.tar.gz'):
        return ShardDataset(str(path), captions='ignored')
    if suffix == '.parquet':
        return ParquetDataset(str(path), captions='ignored')
    if not path.is_file():
        raise FileNotFoundError(f'There is no image, folder or table {path}.')
    if suffix in TABLE_SUFFIXES:
        return ImageTextDataset(str(path), **table)
    return ImageFiles([path])


def _is_caption_table(folder: Path) -> bool:
    try:
        return json.loads((folder / 'meta.json').read_bytes())['format'] == 'mmslip.CaptionTable'
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
