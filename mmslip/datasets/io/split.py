"""Parts of a data set: training, an evaluation, images without a caption."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmslip.datasets.io.json_text import read_json
from mmslip.utils import whole_file

__all__ = ['PARTS', 'read_split', 'write_split']

# The rows that are listed under a name, or, for training, those that are listed nowhere.
PARTS = ('train', 'held_out', 'bare')
_LISTS = ('held_out', 'bare', 'left_out')


def write_split(path: Path, rows: int, digest: str | None = None, **lists: Sequence[int]) -> None:
    """Write a split of a data set as JSON.

    Args:
        path: The file.
        rows: The number of samples of the whole data set, by which a changed one is noticed.
        digest: Of the names of its images, by which one is noticed that has as many.
        **lists: ``held_out``, those of an evaluation; ``bare``, those without a caption; and
            ``left_out``, those that serve neither training nor this evaluation.
    """
    content = dict(
        rows=rows, digest=digest, **{name: sorted(lists.get(name, ())) for name in _LISTS}
    )
    with whole_file(path) as part:
        part.write_text(json.dumps(content) + '\n', encoding='utf-8')


def read_split(path: str | Path, part: str, rows: int, digest: str | None = None) -> list[int]:
    """The rows of one part of a split.

    Args:
        path: A file of :func:`write_split`.
        part: One of :data:`PARTS`.
        rows: The number of samples that the data set has.
        digest: Of the names of its images; compared where the file has one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such part, the file is malformed, or of another data set.
    """
    if part not in PARTS:
        raise ValueError(f'The part of a split is one of {", ".join(PARTS)}, not {part!r}.')
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no split {path}: make it again with `mmslip init`.')
    content = read_json(path)
    lists = [content.get(name) if isinstance(content, dict) else None for name in _LISTS]
    if not all(map(_is_rows, lists)) or not isinstance(content.get('rows'), int):
        raise ValueError(
            f'{path} must have lists of row numbers ({", ".join(_LISTS)}), and how many rows there '
            'are: make it again with `mmslip init`.'
        )
    if content['rows'] != rows or not all(number < rows for numbers in lists for number in numbers):
        raise ValueError(
            f'{path} was made for a data set of {content["rows"]:,} samples, and this one has '
            f'{rows:,}, so that its numbers would mean other images: make it again with '
            '`mmslip init`.'
        )
    if digest and content.get('digest') not in (None, digest):
        raise ValueError(
            f'{path} was made for other images than this data set has, or for another order of '
            'them, so that its numbers would mean other images: make it again with `mmslip init`.'
        )
    if part != 'train':
        return content[part]
    kept = np.ones(rows, bool)
    kept[[number for numbers in lists for number in numbers]] = False
    return np.flatnonzero(kept).tolist()


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, int) and row >= 0 for row in value)
