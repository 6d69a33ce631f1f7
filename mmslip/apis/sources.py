"""Where images come from: files, folders, tables and shards, behind one interface."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.utils import scandir

from mmslip.datasets import ImageTextDataset, ParquetDataset, ShardDataset, TableDataset
from mmslip.registry import DATASETS

__all__ = ['IMAGE_SUFFIXES', 'ImageFiles', 'list_images', 'open_source']

IMAGE_SUFFIXES = (
    '.jpg',
    '.jpeg',
    '.png',
    '.webp',
    '.bmp',
    '.gif',
    '.tif',
    '.tiff',
    '.ppm',
    '.avif',
)


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


class _ShardImages(ShardDataset):
    """The images of shards, with captions or without."""

    def _record(self, shard: int, stem: str, parts: dict[str, tuple[int, int]]) -> dict:
        record = dict(shard=shard, stem=stem)
        image = next((parts[s[1:]] for s in IMAGE_SUFFIXES if s[1:] in parts), None)
        return dict(record, image=image)

    def get_data_info(self, idx: int) -> dict:
        record = super(ShardDataset, self).get_data_info(idx)
        name = f'{self.shards[record["shard"]]}:{record["stem"]}'
        if record['image'] is None:
            raise ValueError(f'{name} has no image.')
        image = self._read(record['shard'], *record['image'])
        return dict(img_bytes=image, img_name=name, sample_idx=record['sample_idx'])


def list_images(folder: Path) -> list[str]:
    """Names of the images in a folder and below it, sorted, relative to it.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder {folder}.')
    return sorted(scandir(folder, IMAGE_SUFFIXES, recursive=True, case_sensitive=False))


def open_source(inputs: Any, image_root: str | Path = '') -> Any:
    """A data set of images: it has a length and ``get_data_info``.

    Args:
        inputs: An image file; a folder, with what lies below it; a table of image paths
            (``.jsonl``, ``.csv``, ``.tsv``, or the folder of a ``CaptionTable``); Parquet files or
            tar shards, as a pattern with ``*`` and ``{000..012}``; a list of image files; or the
            config of a data set.
        image_root: Folder that the paths in a table are relative to.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: The folder or table holds no image, or is damaged.
    """
    if isinstance(inputs, dict):
        return DATASETS.build(dict(inputs, pipeline=[]))
    if isinstance(inputs, list | tuple):
        return ImageFiles(inputs)
    path, prefix = Path(inputs), dict(img_path=str(image_root))
    if path.is_dir() and _is_caption_table(path):
        return TableDataset(str(path), data_prefix=prefix)
    if path.is_dir():
        names = list_images(path)
        if not names:
            raise ValueError(
                f'{path} holds no image; these are known by their suffix: '
                f'{", ".join(IMAGE_SUFFIXES)}.'
            )
        return ImageFiles([path / name for name in names])
    if path.name.endswith(('.tar', '.tar.gz', '.tgz')):
        return _ShardImages(str(path))
    if path.suffix == '.parquet':
        return ParquetDataset(str(path))
    if not path.is_file():
        raise FileNotFoundError(f'There is no image, folder or table {path}.')
    if path.suffix.lower() in ('.jsonl', '.csv', '.tsv'):
        return ImageTextDataset(str(path), data_prefix=prefix)
    return ImageFiles([path])


def _is_caption_table(folder: Path) -> bool:
    try:
        return json.loads((folder / 'meta.json').read_bytes())['format'] == 'mmslip.CaptionTable'
    except (OSError, ValueError, KeyError, TypeError):
        return False
