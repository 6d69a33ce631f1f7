"""Arguments, tables and pictures of the command lines of inference."""

import argparse
import glob
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np

from mmslip.apis.index import folder_of, was_moved
from mmslip.cli.parser import at_least
from mmslip.datasets.io.faults import BadSampleError
from mmslip.datasets.io.json_text import parse_json
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.utils import whole_file
from mmslip.utils.contact_sheet import Tile, draw_grid, draw_sheet

__all__ = [
    'add_model_arguments',
    'add_reading_arguments',
    'default_index',
    'draw_hits',
    'draw_labels',
    'read_labels',
    'read_small',
    'save_json',
    'save_picture',
    'split_labels',
]

_SIDE = 320  # pixels of a picture on a sheet
# Images or queries of a sheet, since more would make a picture that nothing opens; and columns.
_MOST, _COLUMNS = 50, 8


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Model and device."""
    parser.add_argument(
        'config', help='config file, or the name of a model of mmslip.list_models()'
    )
    parser.add_argument(
        'checkpoint',
        help="checkpoint file, or 'pretrained' for the weights of slip_tiny_emoji that come with "
        'mmslip',
    )
    parser.add_argument(
        '--device', help='such as cpu or cuda:1 (default: the GPU, if there is one)'
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes of reading: batch and workers."""
    parser.add_argument(
        '--batch-size', type=at_least(1), default=32, help='images of one pass (default: 32)'
    )
    parser.add_argument(
        '--num-workers',
        type=at_least(0),
        default=0,
        help='processes that read images (default: none)',
    )


def read_labels(values: Sequence[str]) -> list[list[str]] | dict[str, list[str]]:
    """Labels of a command line, each with its synonyms, which a bar separates.

    Args:
        values: Labels; one text of several with commas between them; or the path of a file:
            ``.txt`` with a label in each line, or ``.json`` with a list of labels (or lists of
            synonyms) or an object of them.

    Returns:
        The synonyms of each label; of a JSON object, by its keys.

    Raises:
        ValueError: The file is something else, or a label is empty.
    """
    path = Path(values[0])
    if len(values) == 1 and path.suffix.lower() in ('.txt', '.json'):
        return _read_label_file(path)
    return split_labels(values[0].split(',') if len(values) == 1 else values)


def split_labels(texts: Sequence[str]) -> list[list[str]]:
    """The synonyms of each label; what is blank is no label."""
    labels = ([part.strip() for part in text.split('|')] for text in texts)
    return [names for names in ([*filter(None, names)] for names in labels) if names]


def _read_label_file(path: Path) -> list[list[str]] | dict[str, list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f'There is no file of labels {path}.')
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8 ({error}): convert it, e.g. with iconv.') from error
    if path.suffix.lower() == '.txt':
        return split_labels(text.splitlines())
    content = parse_json(text, str(path))
    values = [*content.values()] if isinstance(content, dict) else content
    if isinstance(values, list):
        names = [[value] if isinstance(value, str) else value for value in values]
        if all(isinstance(n, list) and n and all(isinstance(t, str) for t in n) for n in names):
            return dict(zip(content, names, strict=True)) if isinstance(content, dict) else names
    raise ValueError(
        f'{path} must be a list of labels, or an object {{"folder": "label"}}; a label is a text '
        'or a list of synonyms.'
    )


def default_index(folder: Path) -> Path:
    """Folder of the index of images, where none is given: by the name of theirs and its place.

    Where the images were moved with their folder, it is the index that they had.
    """
    place = folder.resolve()
    root = Path('work_dirs', 'index')
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    index = root / f'{place.name}-{digest}'
    if not index.is_dir():
        others = sorted(root.glob(f'{glob.escape(place.name)}-*'))
        own = [path for path in others if folder_of(path) == place]
        own = own or [path for path in others if was_moved(path, folder)]
        index = next(iter(own), index)
    return index


def save_json(results: Any, path: str | Path) -> None:
    """Write results for other programs; texts stay readable."""
    with whole_file(Path(path)) as part:
        part.write_text(json.dumps(results, ensure_ascii=False, indent=1) + '\n', encoding='utf-8')


def save_picture(picture: np.ndarray, path: str | Path) -> None:
    """Write an RGB picture in the format of its suffix.

    Raises:
        ValueError: There is no such format.
    """
    if Path(path).suffix.lower() not in ('.png', '.jpg', '.jpeg', '.webp'):
        raise ValueError(f'{path} must end in .png, .jpg or .webp, which says how to write it.')
    mmcv.imwrite(mmcv.rgb2bgr(picture), str(path))


def draw_labels(results: Sequence[dict[str, Any]]) -> np.ndarray:
    """A grid of images and their best labels, RGB.

    Args:
        results: Of ``ZeroShotClassificationInferencer``; from files.
    """
    tiles = []
    for result in results[:_MOST]:
        lines = [(top['label'], f'{top["score"]:.1%}') for top in result.get('top', [])]
        name = Path(result['image']).name
        tiles.append(
            Tile(read_small(result['image']), name, lines=lines or [('cannot be read', '')])
        )
    return draw_grid(tiles, _title(len(tiles), len(results), 'images'))


def draw_hits(results: Sequence[dict[str, Any]], folder: Path) -> np.ndarray:
    """A sheet of queries and what was found for them, RGB.

    Args:
        results: Of ``ImageRetrievalInferencer``.
        folder: That it searched.
    """
    rows = []
    for result in results[:_MOST]:
        tiles = [
            Tile(
                read_small(folder / hit['image']), f'{hit["score"]:.3f}  {Path(hit["image"]).name}'
            )
            for hit in result.get('hits', [])
        ]
        text = result['query'] if tiles else f'{result["query"]}\ncannot be read'
        # Many hits continue below.
        rows += [
            ('' if start else text, tiles[start : start + _COLUMNS])
            for start in range(0, max(1, len(tiles)), _COLUMNS)
        ]
    return draw_sheet(rows, _title(min(_MOST, len(results)), len(results), 'queries'))


def _title(shown: int, total: int, what: str) -> str:
    return f'The first {shown} of {total:,} {what}' if shown < total else ''


def read_small(path: str | Path) -> np.ndarray:
    """An image, RGB, no larger than a sheet shows it; grey if it cannot be read."""
    try:
        image = mmcv.bgr2rgb(LoadImage()(dict(img_path=str(path)))['img'])
    except (BadSampleError, OSError):
        return np.full((_SIDE, _SIDE, 3), 192, np.uint8)
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return mmcv.imresize(image, size, interpolation='area') if scale < 1 else image
