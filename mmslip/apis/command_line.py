"""What the command lines of ``tools/inference`` share."""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmcv
import numpy as np

from mmslip.datasets.faults import BadSampleError
from mmslip.datasets.transforms.load_image import LoadImage
from mmslip.utils import whole_file
from mmslip.utils.contact_sheet import Tile, draw_sheet

__all__ = [
    'add_model_arguments',
    'add_reading_arguments',
    'default_index',
    'draw_hits',
    'draw_labels',
    'plain_errors',
    'read_small',
    'save_json',
    'save_picture',
]

_SIDE = 320  # pixels of a picture on a sheet
# Rows of a sheet; more would make a picture that nothing opens.
_ROWS = 50


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and where it runs."""
    parser.add_argument(
        'config', help='config file, or the name of a model of mmslip.list_models()'
    )
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--device', help='such as cpu or cuda:1 (default: the GPU, if there is one)'
    )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """How many images are read and embedded at a time."""
    parser.add_argument(
        '--batch-size', type=int, default=32, help='images of one pass (default: 32)'
    )
    parser.add_argument(
        '--num-workers', type=int, default=0, help='processes that read images (default: none)'
    )


def default_index(folder: Path) -> Path:
    """Where the index of a folder is kept, unless it is said."""
    return Path('work_dirs', 'index', folder.resolve().name)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End with the message of an error that its text explains, without a traceback."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise SystemExit(f'{error}') from None


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
    """A sheet of images and their best labels, RGB.

    Args:
        results: Of ``ZeroShotClassificationInferencer``; from files.
    """
    rows = []
    for result in results[:_ROWS]:
        lines = [f'{top["label"]}  {top["score"]:.1%}' for top in result.get('top', [])]
        text = '\n'.join(lines) or 'cannot be read'
        rows.append((text, [Tile(read_small(result['image']), Path(result['image']).name)]))
    return draw_sheet(rows)


def draw_hits(results: Sequence[dict[str, Any]], folder: Path) -> np.ndarray:
    """A sheet of queries and what was found for them, RGB.

    Args:
        results: Of ``ImageRetrievalInferencer``.
        folder: That it searched.
    """
    rows = [
        (
            result['query'],
            [
                Tile(
                    read_small(folder / hit['image']),
                    f'{hit["score"]:.3f}  {Path(hit["image"]).name}',
                )
                for hit in result['hits']
            ],
        )
        for result in results[:_ROWS]
        if 'hits' in result
    ]
    return draw_sheet(rows)


def read_small(path: str | Path) -> np.ndarray:
    """An image, RGB, no larger than a sheet shows it; grey if it cannot be read."""
    try:
        image = mmcv.bgr2rgb(LoadImage()(dict(img_path=str(path)))['img'])
    except (BadSampleError, OSError):
        return np.full((_SIDE, _SIDE, 3), 192, np.uint8)
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return mmcv.imresize(image, size, interpolation='area') if scale < 1 else image
