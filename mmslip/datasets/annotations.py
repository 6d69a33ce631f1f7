"""What the readers of published annotation files share."""

import functools
import glob
import json
import os
import pickle
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from braceexpand import braceexpand
from mmengine.logging import print_log

__all__ = [
    'RecordTable',
    'captions_of',
    'expand_patterns',
    'keep_usable',
    'missing_files',
    'read_json',
]


class RecordTable(Sequence):
    """Records as one block of bytes, filled from a stream.

    Fifteen million dicts would take many gigabytes while they are collected, and would be copied
    into every worker as their reference counts change. Here only the packed form ever exists. A
    data set that returns a table from ``load_data_list`` sets ``serialize_data=False``.

    Args:
        records: What to hold; consumed one by one.
    """

    def __init__(self, records: Iterable[dict]) -> None:
        content, ends = bytearray(), array('q')
        for record in records:
            content += pickle.dumps(record, protocol=4)
            ends.append(len(content))
        self._content = np.frombuffer(content, np.uint8)
        self._ends = np.frombuffer(ends, np.int64) if ends else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int | slice) -> dict | list[dict]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = int(self._ends[number - 1]) if number else 0
        return pickle.loads(self._content[start : int(self._ends[number])])


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no annotation file {path}: check `ann_file` and `data_root` of the data set.'
        )
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # of the encoding, too
        raise ValueError(
            f'{path} is not valid JSON ({error}): it is damaged or another kind of file; copy or '
            'download it again.'
        ) from error


def expand_patterns(patterns: str | Sequence[str], root: str, argument: str) -> list[Path]:
    """Files of shell patterns (``*``, ``{000..127}``) relative to a folder, in order.

    Raises:
        FileNotFoundError: A pattern matches no file; the message names it and ``argument``.
    """
    paths = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for name in braceexpand(pattern):
            found = sorted(glob.glob(name, root_dir=root or None))
            if not found:
                raise FileNotFoundError(
                    f'No file matches {Path(root, name)}: check `{argument}` and `data_root` of '
                    'the data set.'
                )
            paths += [Path(root, path) for path in found]
    return paths


def captions_of(row: dict, keys: Sequence[str], where: str) -> list[str]:
    """The non-empty captions of a row, which may be texts, lists of texts or absent values.

    Raises:
        ValueError: A key is unknown or a value is no text; the message starts with ``where``.
    """
    captions = []
    for key in keys:
        if key not in row:
            raise ValueError(
                f'{where} has no caption {key!r}; it has {", ".join(map(repr, row))}. Set the '
                'caption key of the data set to one of its names.'
            )
        value = row[key] if isinstance(row[key], list) else [row[key]]
        if not all(caption is None or isinstance(caption, str) for caption in value):
            raise ValueError(f'{where}: caption {key!r} must be text or texts, not {value!r:.60}.')
        captions += [caption.strip() for caption in value if caption and caption.strip()]
    return captions


def keep_usable(records: Iterable[dict], source: str, remedy: str) -> Iterator[dict]:
    """Pass on the records that have a caption and whose image file exists.

    Of sets published as links a part can no longer be had, so gaps are normal: one line of the log
    says how many. Folders are listed rather than each file looked up, which would take hours for
    millions of files on a network drive.

    Args:
        records: With ``img_path`` and ``text``, a list of captions.
        source: Name of the annotations in messages.
        remedy: What to check if no image is found.

    Raises:
        FileNotFoundError: None of the images exists.
        ValueError: There are no records, or none with a caption.
    """
    names_in = functools.lru_cache(maxsize=4)(_file_names)
    total = absent = blank = 0
    missing = ''
    for total, record in enumerate(records, 1):  # noqa: B007
        folder, name = os.path.split(record['img_path'])
        if name not in names_in(folder):
            absent += 1
            missing = missing or record['img_path']
        elif not record['text']:
            blank += 1
        else:
            yield record
    if absent and absent == total:
        raise FileNotFoundError(
            f'None of the {total:,} images of {source} exists, such as {missing}: {remedy}'
        )
    if absent + blank == total:
        raise ValueError(f'{source} has no rows with a caption.')
    if absent or blank:
        print_log(
            f'{source}: of {total:,} rows, {absent:,} without image file and {blank:,} without '
            f'caption are left out; {total - absent - blank:,} remain.',
            logger='current',
        )


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the paths where nothing is; folders are listed rather than each file looked up."""
    names_in = functools.lru_cache(maxsize=64)(_file_names)
    return [path for path in paths if os.path.basename(path) not in names_in(os.path.dirname(path))]


def _file_names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or '.'))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
