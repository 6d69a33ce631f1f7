"""Images from files, folders, tables and shards behind one interface."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmslip.datasets import (
    FolderDataset,
    ShardDataset,
    TableDataset,
)
from mmslip.datasets.io.folder import list_images
from mmslip.datasets.io.rows import TABLE_SUFFIXES
from mmslip.datasets.recognise import SHARD_SUFFIXES, find_images
from mmslip.registry import DATASETS

__all__ = ['ImageFiles', 'list_images', 'open_images', 'open_source']


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


def open_images(inputs: str | Path) -> ImageFiles | FolderDataset:
    """A data set of one image file, or of those of a folder and what lies below it.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is something else, or the folder holds no image.
    """
    path = Path(inputs)
    if path.is_dir():
        return FolderDataset(str(path))
    if not path.is_file():
        raise FileNotFoundError(f'There is no image or folder {path}.')
    if path.name.lower().endswith((*SHARD_SUFFIXES, '.parquet', *TABLE_SUFFIXES)):
        raise ValueError(f'{path} is no image file and no folder of images.')
    return ImageFiles([path])


def open_source(inputs: Any, image_root: str | Path = '', image_key: str | None = None) -> Any:
    """A data set of images: it has a length and ``get_data_info``.

    Args:
        inputs: An image file; a folder, with what lies below it; a table of image paths (a text
            file, see :func:`mmslip.datasets.io.rows.read_rows`, or the folder of a
            ``CaptionTable``); Parquet files or tar shards, as a pattern with ``*`` and
            ``{000..012}``; a list of image files; or the config of a data set.
        image_root: Folder that the paths in a table are relative to; by default that of a text
            file, or one in it, in which the first images are.
        image_key: Column of images of a text file or Parquet files; by default one of the usual
            names.

    Raises:
        FileNotFoundError: There is nothing, or none of the first images of a text file.
        ValueError: The folder or table holds no image, or is damaged; or no column has a usual
            name.
    """
    if isinstance(inputs, dict):
        return DATASETS.build(dict(inputs, pipeline=[]))
    if isinstance(inputs, list | tuple):
        return ImageFiles(inputs)
    path = Path(inputs)
    name = path.name.lower()
    if _is_caption_table(path):
        prefix = dict(img_path=str(image_root))
        return TableDataset(str(path), data_prefix=prefix, captions='ignored')
    if not path.is_dir() and name.endswith(SHARD_SUFFIXES):
        return ShardDataset(str(path), captions='ignored')
    if name.endswith('.parquet') or (path.is_file() and name.endswith(TABLE_SUFFIXES)):
        config = find_images(path, image_root or None, image_key)
        return DATASETS.build(dict(config, captions='ignored', pipeline=[]))
    if not path.exists():
        raise FileNotFoundError(f'There is no image, folder or table {path}.')
    return open_images(path)


def _is_caption_table(folder: Path) -> bool:
    try:
        return json.loads((folder / 'meta.json').read_bytes())['format'] == 'mmslip.CaptionTable'
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
