"""Tables of images and captions in text files: JSON lines, JSON, CSV, TSV, and Flickr8k's."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

from mmslip.datasets.io.json_rows import rows_of_json
from mmslip.datasets.io.json_text import parse_json

__all__ = ['TABLE_SUFFIXES', 'read_rows']

TABLE_SUFFIXES = ('.jsonl', '.json', '.csv', '.tsv', '.txt', '.token')
# Looked for in the header of what is not called .tsv; a comma first.
_DELIMITERS = ',;\t|'
# A line of Flickr8k.token.txt: image, number of its caption, caption.
_TOKEN = re.compile(r'(?P<image>[^\t]+)#\d+\t(?P<caption>.*)')


def read_rows(path: Path) -> Iterator[tuple[str, dict]]:
    """Every row, with its file and place as messages name them.

    The kind of table follows from its name:

    - ``.jsonl``: a JSON object a line;
    - ``.json``: see :func:`mmslip.datasets.io.json_rows.rows_of_json`, and JSON lines;
    - ``.tsv``, ``.csv``: cells below a header line; those of a ``.csv`` may be separated by
      semicolons, tabs or bars as well;
    - ``.txt``: Flickr8k's ``captions.txt``, a ``.csv`` of two columns, of which the second may have
      commas; or, also as ``.token``, its ``Flickr8k.token.txt``, lines of ``IMAGE#NUMBER``, a tab
      and a caption, which become rows of ``image`` and ``caption``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind or malformed; the message names file and row.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        kinds = f'{", ".join(TABLE_SUFFIXES[:-1])} or {TABLE_SUFFIXES[-1]}'
        raise ValueError(f'{path} must end in {kinds}, which says how to read it.')
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            if suffix == '.jsonl':
                yield from _lines(file, path)
            elif suffix == '.json':
                first, rest = file.readline(), file.read()
                if _is_object(first) and rest.strip():  # JSON lines under another name
                    yield from _lines(chain([first], rest.splitlines(keepends=True)), path)
                else:
                    yield from rows_of_json(first + rest, path)
            else:
                yield from _parse_table(file, path, suffix)
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8 ({error}): convert it, e.g. with iconv.') from error


def _is_object(text: str) -> bool:
    """Whether a line is a whole JSON object."""
    try:
        return isinstance(parse_json(text, ''), dict)
    except ValueError:
        return False


def _lines(lines: TextIO | Iterator[str], path: Path) -> Iterator[tuple[str, dict]]:
    for number, text in enumerate(lines, 1):
        if text.strip():
            where = f'{path}, line {number}'
            row = parse_json(text, where)
            if not isinstance(row, dict):
                raise ValueError(f'{where} must be a JSON object, not {text.strip()[:60]}.')
            yield where, row


def _parse_table(file: TextIO, path: Path, suffix: str) -> Iterator[tuple[str, dict]]:
    header = file.readline()
    if suffix in ('.txt', '.token') and _TOKEN.match(header):
        for number, text in enumerate(chain([header], file), 1):
            found = _TOKEN.match(text)
            if found:
                yield f'{path}, line {number}', found.groupdict()
            elif text.strip():
                raise ValueError(
                    f'{path}, line {number} must be IMAGE#NUMBER, a tab and a caption, as the '
                    f'first line is, not {text.strip()[:60]!r}.'
                )
        return
    delimiter = '\t' if suffix == '.tsv' else next((d for d in _DELIMITERS if d in header), ',')
    yield from _parse_cells(chain([header], file), path, delimiter, suffix == '.txt')


def _parse_cells(
    lines: Iterator[str], path: Path, delimiter: str, open_end: bool
) -> Iterator[tuple[str, dict]]:
    """Rows below a header.

    Args:
        lines: All lines of the file.
        path: Its name, for messages.
        delimiter: What separates cells.
        open_end: Whether the second of two cells may hold the delimiter without quotes.
    """
    # Strict: otherwise a stray quotation mark swallows the rows behind it into one caption.
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        twice = [name for name, number in Counter(reader.fieldnames).items() if name and number > 1]
        if twice:
            raise ValueError(
                f'{path} has more than one column {twice[0]!r}: rename them, and list them all in '
                '`caption_keys` if they are captions.'
            )
        for row in reader:
            where = f'{path}, line {reader.line_num}'
            if open_end and len(reader.fieldnames) == 2 and None in row:
                last = reader.fieldnames[1]
                row[last] = delimiter.join([row[last], *row.pop(None)])
            if None in row or None in row.values():
                raise ValueError(
                    f'{where} has another number of cells than the header: quote cells that '
                    'contain the delimiter.'
                )
            yield where, row
    except csv.Error as error:
        raise ValueError(
            f'{path} is malformed after line {reader.line_num} ({error}): quote the whole cell and '
            'double the quotation marks inside it, or use JSONL.'
        ) from error
