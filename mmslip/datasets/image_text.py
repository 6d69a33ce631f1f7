"""Images and captions listed in a JSONL, CSV or TSV file."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from mmslip.datasets.base import CaptionedDataset
from mmslip.registry import DATASETS

__all__ = ['ImageTextDataset', 'read_cells', 'read_rows']

_DELIMITERS = {'.csv': ',', '.tsv': '\t'}


@DATASETS.register_module()
class ImageTextDataset(CaptionedDataset):
    r"""Your own pairs: a table with an image path and one or more captions in each row.

    The kind of table follows from its name: ``.jsonl`` (one JSON object a line; a caption may be a
    string or a list of strings), ``.csv`` or ``.tsv`` (with a header line). Where a row has several
    captions, one is drawn at every visit.

    Args:
        ann_file: The table; relative to ``data_root`` if that is given.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``dict(img_path=FOLDER)``, the folder that image paths are relative to.
        image_key: Column of the image path.
        caption_keys: Columns of captions; empty cells are passed over as long as a row has one
            caption.
        **kwargs: Arguments of mmengine's ``BaseDataset``, ``pipeline`` above all.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: A column is unknown, or a row is malformed, has no image or has no caption; the
            message names file and row.

    Example:
        >>> dataset = dict(
        ...     type='mmslip.ImageTextDataset',
        ...     data_root='data/mine',
        ...     ann_file='train.jsonl',  # {"image": "a/1.jpg", "caption": "a red chair"}
        ...     data_prefix=dict(img_path='images'),
        ...     pipeline=train_pipeline)
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        image_key: str = 'image',
        caption_keys: str | Sequence[str] = 'caption',
        **kwargs: object,
    ) -> None:
        self.image_key = image_key
        self.caption_keys = [caption_keys] if isinstance(caption_keys, str) else list(caption_keys)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix or dict(img_path=''),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Read the table."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f'There is no table {path}: check `ann_file` and `data_root` of the data set.'
            )
        folder = Path(self.data_prefix['img_path'] or '')
        records = []
        for line, row in read_rows(path):
            where = f'{path}, line {line}'
            image, *_ = read_cells(row, [self.image_key], where)
            captions = read_cells(row, self.caption_keys, where)
            records.append(dict(img_path=str(folder / image), text=captions))
        if not records:
            raise ValueError(f'{path} has no rows.')
        return records


def read_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Line number and content of every row of a JSONL, CSV or TSV file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind or malformed; the message names file and row.
    """
    suffix = path.suffix.lower()
    if suffix not in ('.jsonl', *_DELIMITERS):
        raise ValueError(f'{path} must end in .jsonl, .csv or .tsv, which says how to read it.')
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            if suffix == '.jsonl':
                for line, text in enumerate(file, 1):
                    if text.strip():
                        yield line, _parse_json(text, path, line)
            else:
                yield from _parse_cells(file, path, _DELIMITERS[suffix])
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8 ({error}): convert it, e.g. with iconv.') from error


def read_cells(row: dict, keys: Sequence[str], where: str) -> list[str]:
    """The texts in some columns of a row, stripped, without those that are empty.

    Args:
        row: A row of :func:`read_rows`.
        keys: The columns.
        where: File and line, for messages.

    Raises:
        ValueError: A column is unknown or holds something other than text, or all are empty.
    """
    cells = []
    for key in keys:
        if key not in row:
            raise ValueError(
                f'{where} has no column {key!r}; it has {", ".join(map(repr, row))}. '
                'Set `image_key` and `caption_keys` of the data set to its names.'
            )
        value = row[key] if isinstance(row[key], list) else [row[key]]
        if not all(cell is None or isinstance(cell, str) for cell in value):
            raise ValueError(f'{where}: {key!r} must be text or a list of texts, not {value}.')
        cells += [cell.strip() for cell in value if cell and cell.strip()]
    if not cells:
        raise ValueError(
            f'{where}: {", ".join(map(repr, keys))} is empty. Remove the row or fill it in.'
        )
    return cells


def _parse_cells(file: TextIO, path: Path, delimiter: str) -> Iterator[tuple[int, dict]]:
    # Strict: otherwise a stray quotation mark swallows the rows behind it into one caption.
    reader = csv.DictReader(file, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f'{path}, line {reader.line_num} has another number of cells than the header: '
                    'quote cells that contain the delimiter.'
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(
            f'{path} is malformed after line {reader.line_num} ({error}): quote the whole cell and '
            'double the quotation marks inside it, or use JSONL.'
        ) from error


def _parse_json(text: str, path: Path, line: int) -> dict:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}, line {line} is not valid JSON: {error}.') from error
    if not isinstance(row, dict):
        raise ValueError(f'{path}, line {line} must be a JSON object, not {text.strip()[:60]}.')
    return row
