"""From a path to the config of a data set that reads what lies there."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmslip.datasets.io.folder import is_hidden, list_images
from mmslip.datasets.io.json_text import parse_json
from mmslip.datasets.io.patterns import expand_patterns
from mmslip.datasets.io.rows import TABLE_SUFFIXES, read_rows
from mmslip.datasets.parquet import ParquetDataset
from mmslip.datasets.shards import ShardDataset

__all__ = ['SHARD_SUFFIXES', 'find_images', 'recognise']

# Names of columns, the likeliest first; compared in small letters.
_IMAGE_KEYS = (
    *('image', 'img', 'image_path', 'img_path', 'image_name', 'file_name', 'filename', 'filepath'),
    *('image_file', 'file', 'path', 'jpg', 'image_id', 'name'),
)
_CAPTION_KEYS = (
    *('caption', 'captions', 'text', 'texts', 'sentence', 'sentences', 'comment', 'description'),
    *('title', 'alt_text', 'alt', 'report', 'findings', 'prompt'),
)
SHARD_SUFFIXES = ('.tar', '.tar.gz', '.tgz')
_MOST_FOLDERS, _MOST_ROWS = 100, 1000


def recognise(
    data: str | Path,
    images: str | Path | None = None,
    image_key: str | None = None,
    caption_keys: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Config of a data set, with absolute paths, and without a pipeline.

    It has ``captions='ignored'`` where nothing can be a caption.

    Args:
        data: A table (see :func:`mmslip.datasets.io.rows.read_rows`, or the folder of a
            ``CaptionTable``); tar shards or Parquet files, or a folder of them, or a pattern; or a
            folder of images, with text files or one table beside them, or without.
        images: Folder that image paths of a table are relative to; by default that of the table, or
            one in it, in which the first images are.
        image_key: Column of images; by default one of the usual names.
        caption_keys: Columns of captions, likewise.

    Raises:
        FileNotFoundError: There is nothing, or the images of a table are nowhere.
        ValueError: It is of no known kind, or columns have no usual name.
    """
    path = Path(data).absolute()
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f'There is no folder of images {images}.')
    keys = dict(image_key=image_key, caption_keys=caption_keys and list(caption_keys))
    if path.is_dir():
        return _of_folder(path, images, keys)
    if _ends_in(path, SHARD_SUFFIXES):
        return _of_shards(path, caption_keys)
    if _ends_in(path, ('.parquet',)):
        return _of_parquet(path, keys)
    if not path.is_file():
        raise FileNotFoundError(f'There is no table, folder, shard or Parquet file {path}.')
    return _of_table(path, images, keys)


def find_images(
    data: str | Path, images: str | Path | None = None, image_key: str | None = None
) -> dict[str, Any]:
    """Config of the images of a table or of Parquet files, whose captions nobody wants.

    Args:
        data: The table, or the pattern of the files.
        images: Folder that image paths of a table are relative to, as for :func:`recognise`.
        image_key: Column of images, likewise.

    Raises:
        FileNotFoundError: There is no such table, or its images are nowhere.
        ValueError: There are no rows, or no column has a usual name.
    """
    path = Path(data)
    if _ends_in(path, ('.parquet',)):
        images, texts, where = _columns_of(path)
        key = _image_key(images, [*images, *texts], where, image_key)
        return dict(type='mmslip.ParquetDataset', files=str(path), image_key=key)
    rows = _first_rows(path)
    columns = _columns_in(rows)
    key = _image_key(columns, columns, str(path), image_key)
    folder = dict(img_path=str(_image_folder(path, rows, key, images)))
    return dict(
        type='mmslip.ImageTextDataset', ann_file=str(path), data_prefix=folder, image_key=key
    )


def _ends_in(path: Path, suffixes: Iterable[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def _of_folder(path: Path, images: str | Path | None, keys: dict) -> dict[str, Any]:
    names = sorted(name for name in os.listdir(path) if not is_hidden(name))
    if {'meta.json', 'ends.u64'} <= set(names):
        folder = str(Path(images or path.parent).absolute())
        config = dict(type='mmslip.TableDataset', ann_file=str(path))
        return dict(config, data_prefix=dict(img_path=folder))
    for suffix in (*SHARD_SUFFIXES, '.parquet'):
        if any(name.lower().endswith(suffix) for name in names):
            pattern = path / f'*{suffix}'
            if suffix == '.parquet':
                return _of_parquet(pattern, keys)
            return _of_shards(pattern, keys['caption_keys'])
    tables = [name for name in names if _is_table(path / name)]
    if len(tables) == 1:
        return _of_table(path / tables[0], images, keys)
    found = list_images(path)
    if not found:
        raise ValueError(
            f'{path} holds no image, shard (.tar), Parquet file'
            + (f', and more than one table: name one of {", ".join(tables)}.' if tables else '.')
        )
    config = dict(type='mmslip.FolderDataset', data_root=str(path))
    beside = any((path / name).with_suffix('.txt').is_file() for name in found)
    return config if beside else dict(config, captions='ignored')


def _is_table(path: Path) -> bool:
    """Whether a file in a folder of images looks like the table of them."""
    if path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        return False
    try:
        columns = _columns_in(row for _, row in islice(read_rows(path), _MOST_ROWS))
    except ValueError:
        return False
    return bool(_choose(columns, _IMAGE_KEYS) and _choose(columns, _CAPTION_KEYS))


def _of_table(path: Path, images: str | Path | None, keys: dict) -> dict[str, Any]:
    rows = _first_rows(path)
    columns = _columns_in(rows)
    if not _choose(columns, _CAPTION_KEYS):  # in JSON, an image without may lack the column
        columns = _columns_in(row for _, row in read_rows(path))
    keys = _keys_of(columns, columns, str(path), keys)
    folder = _image_folder(path, rows, keys['image_key'], images).absolute()
    config = dict(type='mmslip.ImageTextDataset', ann_file=str(path))
    return dict(config, data_prefix=dict(img_path=str(folder)), **_unusual(keys))


def _first_rows(path: Path) -> list[dict]:
    rows = [row for _, row in islice(read_rows(path), 20)]
    if not rows:
        raise ValueError(f'{path} has no rows.')
    return rows


def _columns_in(rows: Iterable[dict]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _image_folder(path: Path, rows: list[dict], key: str, images: str | Path | None) -> Path:
    """The folder that image paths of a table are relative to: that given, or the first that fits.

    Raises:
        FileNotFoundError: None of the first images is there.
    """
    names = [str(row.get(key)) for row in rows]
    if images is not None:
        tried = [Path(images)]
    else:
        inner = (folder for folder in sorted(path.parent.iterdir()) if folder.is_dir())
        tried = [path.parent, *islice(inner, _MOST_FOLDERS)]
    found = [folder for folder in tried if any((folder / name).is_file() for name in names)]
    if not found:
        raise FileNotFoundError(
            f'None of the first {len(names)} images of {path} is there, such as '
            f'{tried[0] / names[0]}: name the folder that they lie in by --images.'
        )
    return found[0]


def _of_shards(pattern: Path, caption_keys: Sequence[str] | None) -> dict[str, Any]:
    config = dict(type='mmslip.ShardDataset', shards=str(pattern))
    caption_keys = caption_keys or _keys_of_shards(pattern)
    if caption_keys is None:
        return dict(config, captions='ignored')
    return dict(config, **_unusual(dict(caption_keys=caption_keys)))


def _keys_of_shards(pattern: Path) -> list[str] | None:
    """Keys of captions, by the first sample that may have one; None if there is no such sample."""
    for shard in expand_patterns(str(pattern), '', '--data'):
        dataset = ShardDataset(str(shard), captions='ignored')
        for place in range(len(dataset)):
            record = BaseDataset.get_data_info(dataset, place)  # without its image
            content = None
            if 'json' in record['members']:
                with suppress(ValueError):  # a bad sample, told by who visits it
                    content = parse_json(dataset.read_member(record, 'json'), '')
            keys = _choose(content if isinstance(content, dict) else {}, _CAPTION_KEYS)
            if keys or 'txt' in record['members']:
                return keys or ['caption']
    return None


def _of_parquet(pattern: Path, keys: dict) -> dict[str, Any]:
    images, texts, where = _columns_of(pattern)
    keys = _keys_of(images, texts, where, keys)
    return dict(type='mmslip.ParquetDataset', files=str(pattern), **_unusual(keys))


def _columns_of(pattern: Path) -> tuple[list[str], list[str], str]:
    """Columns of Parquet files that may hold images, those that may hold texts, the first file."""
    dataset = ParquetDataset(str(pattern), image_key='', captions='ignored', lazy_init=True)
    fields = {field.name: str(field.type) for field in dataset.schema()}
    images = [name for name, kind in fields.items() if 'binary' in kind]
    texts = [name for name, kind in fields.items() if 'string' in kind and name not in images]
    return images, texts, dataset.files[0]


def _keys_of(images: list[str], texts: list[str], where: str, given: dict) -> dict[str, Any]:
    """Columns of images and captions: those given, or else of a usual name, or the only ones.

    Returns:
        ``image_key`` and ``caption_keys``, and ``captions='ignored'`` where no column is left.
    """
    columns = list(dict.fromkeys([*images, *texts]))
    image = _image_key(images, columns, where, given['image_key'])
    captions = given['caption_keys'] or _choose(texts, _CAPTION_KEYS)
    others = [name for name in texts if name != image]
    if not captions and len(others) == 1:
        captions = others
    if others and not captions:
        raise ValueError(
            f'{where} has the columns {", ".join(map(repr, columns))}: say by --caption-keys which '
            'are captions.'
        )
    for name in captions:
        _require(name, columns, where)
    keys = dict(image_key=image, caption_keys=captions)
    return keys if captions else dict(image_key=image, captions='ignored')


def _image_key(images: list[str], columns: list[str], where: str, given: str | None) -> str:
    """The column of images: that given, or else of a usual name, or the only one."""
    image = given or next(iter(_choose(images, _IMAGE_KEYS)), None)
    image = image or (images[0] if len(images) == 1 else None)
    if not image:
        raise ValueError(
            f'{where} has the columns {", ".join(map(repr, columns))}: say by --image-key which is '
            'that of images.'
        )
    return _require(image, columns, where)


def _require(name: str, columns: list[str], where: str) -> str:
    if name not in columns:
        raise ValueError(f'{where} has no column {name!r}; it has {", ".join(map(repr, columns))}.')
    return name


def _choose(names: Iterable[str], usual: Sequence[str]) -> list[str]:
    """The name that comes first among the usual ones, if there is one."""
    known = {name.lower(): name for name in reversed(list(names))}
    return [known[name] for name in usual if name in known][:1]


def _unusual(keys: dict) -> dict[str, Any]:
    """Keys that are not what data sets take by default."""
    usual = dict(image_key='image', caption_keys=['caption'])
    return {name: value for name, value in keys.items() if value != usual.get(name)}
