r"""Make the caption table of YFCC15M out of YFCC100M's metadata.

    python tools/dataset_converters/yfcc15m.py --metadata yfcc100m_dataset.txt \
        --subset yfcc100m_subset_data.tsv --downloaded flickr_unique_ids.npy \
        --out data/yfcc15m/train.table

`--metadata` is the release with 25 columns (row, photo, hash, ..., title, description, ...), in one
file or several, `.bz2` or not. `--subset` is OpenAI's list of photographs with English captions
(row, photo, hash); `--downloaded` an array of the rows whose photographs exist, such as the one the
SLIP authors name. Titles and descriptions are unquoted and freed of HTML tags, URLs and runs of
white space; a photograph without either is left out. The authors count 14,689,580 that way.

The metadata pass through once, in constant memory and some ten minutes (`.bz2` takes longer; unpack
it first with several threads, e.g. `lbzip2`). An interrupted run is started again with the same
arguments and goes on where it was (`.bz2` is unpacked up to there, but not read again).
"""

import argparse
import bz2
import io
import re
import zipfile
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus

import numpy as np
from rich.progress import open as open_with_progress

from mmslip.datasets import CaptionTable
from mmslip.datasets.io.caption_table import CaptionTableWriter
from mmslip.datasets.io.captions import captions_of

EXPECTED = 14_689_580
COLUMNS, TITLE, DESCRIPTION = 25, 8, 9
SAVE_EVERY = 1_000_000  # lines: some seconds
# A letter has to follow, so that "<3" and "x < y" stay.
_TAG = re.compile(r'</?[a-z][^<>]*>', re.IGNORECASE)
_URL = re.compile(r'\b(?:https?:|www\.)\S*', re.IGNORECASE)


def clean(quoted: str) -> str:
    """A title or description as text."""
    text = _TAG.sub(' ', unquote_plus(quoted))
    return ' '.join(_URL.sub(' ', text).split())


def read_subset(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows, in rising order, and photo numbers of the wanted photographs: int64 of (N,)."""
    try:
        table = np.loadtxt(path, np.int64, delimiter='\t', usecols=(0, 1), ndmin=2)  # (N, 2)
    except ValueError as error:
        raise ValueError(
            f'{path} must have a row number and a photo number in each line, tab-separated: {error}'
        ) from error
    rows, photos = table[np.argsort(table[:, 0])].T
    if len(rows) == 0 or (np.diff(rows) == 0).any():
        raise ValueError(f'{path} is empty or lists a row twice: fetch it again.')
    return rows, photos


def read_downloaded(path: Path) -> np.ndarray:
    """Rows whose photographs exist."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} must be a .npy file of row numbers: {error}') from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in 'iu':
        raise ValueError(f'{path} must be a .npy file of one row of integers.')
    return rows


@dataclass
class State:
    """Progress of a conversion."""

    inputs: str  # what it reads, to see that it is the same after an interruption
    seen: np.ndarray  # bool (N,): the wanted rows found so far
    part: int = 0  # file of the metadata
    offset: int = 0  # bytes of it that are done, unpacked
    line: int = 0  # and lines
    empty: int = 0  # rows without a caption


def describe(paths: Sequence[Path], rows: np.ndarray, photos: np.ndarray) -> str:
    """Text that tells one conversion from another."""
    files = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    return f'{files} {zlib.crc32(rows.tobytes())} {zlib.crc32(photos.tobytes())}'


def read_lines(path: Path, offset: int) -> Iterator[bytes]:
    """Lines of a text file, packed or not, from a place in it on, under a progress bar."""
    with open_with_progress(path, 'rb', description=path.name) as raw:
        # In large blocks: the bar is drawn for every read.
        blocks = io.BufferedReader(raw, 1 << 20)
        lines = bz2.BZ2File(blocks) if path.suffix == '.bz2' else blocks
        try:
            lines.seek(offset)
            yield from lines
        except (EOFError, OSError) as error:
            raise ValueError(f'{path} is damaged ({error}): fetch it again.') from error


def begin(inputs: str, number: int, writer: CaptionTableWriter) -> State:
    """State in which a conversion of `number` rows has to begin or go on."""
    if not writer.state:
        return State(inputs, np.zeros(number, bool))
    if str(writer.state['inputs']) != inputs:
        raise ValueError(
            f'{writer.partial} is the beginning of a conversion of other files: give the same '
            'ones to go on with it, or remove it.'
        )
    numbers = ('part', 'offset', 'line', 'empty')
    return State(inputs, writer.state['seen'], *(int(writer.state[name]) for name in numbers))


def convert(
    paths: Sequence[Path], rows: np.ndarray, photos: np.ndarray, writer: CaptionTableWriter
) -> State:
    """Write key and captions of the wanted photographs.

    Args:
        paths: Files of the metadata.
        rows: Wanted rows in rising order, int64 of (N,).
        photos: Their photo numbers, to see that both lists count rows alike.
        writer: Takes the captions, and knows how far an interrupted run has come.

    Raises:
        ValueError: A line has another form, the lists disagree, or a row comes twice.
    """
    state = begin(describe(paths, rows, photos), len(rows), writer)
    wanted = array('q', rows.tobytes())  # bisecting it is much faster than a NumPy array
    for part in range(state.part, len(paths)):
        for line in read_lines(paths[part], state.offset):
            state.line, state.offset = state.line + 1, state.offset + len(line)
            where = f'{paths[part]}, line {state.line}'
            first, _, rest = line.partition(b'\t')
            if not first.isdigit():
                raise ValueError(f'{where} must begin with a row number, not {first!r:.40}')
            row = int(first)
            place = bisect_left(wanted, row)
            if place < len(wanted) and wanted[place] == row:
                if state.seen[place]:
                    raise ValueError(f'{where}: row {row} comes twice; give each file once.')
                state.seen[place] = True
                captions = parse(row, rest, photos[place], where)
                if captions:
                    writer.add(str(row), captions)
                else:
                    state.empty += 1
            if state.line % SAVE_EVERY == 0:
                writer.save(**vars(state))
        state.part, state.offset, state.line = part + 1, 0, 0
    return state


def parse(row: int, rest: bytes, photo: int, where: str) -> list[str]:
    """Captions in a line, without the row number at its start."""
    try:
        cells = rest.decode().split('\t')
    except UnicodeDecodeError as error:
        raise ValueError(f'{where} is not UTF-8 ({error}): fetch the file again.') from error
    if len(cells) != COLUMNS - 1:
        raise ValueError(
            f'{where} has {len(cells) + 1} columns, not {COLUMNS}: take the release of '
            'yfcc100m_dataset that begins with row, photo and hash.'
        )
    if cells[0] != str(photo):
        raise ValueError(
            f'{where}: row {row} is photo {cells[0]} here and {photo} in the subset, so the two '
            'lists count rows differently.'
        )
    texts = [clean(cells[column - 1]) for column in (TITLE, DESCRIPTION)]
    return captions_of(dict(texts=texts), ['texts'], where)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--metadata', type=Path, nargs='+', required=True, help='text or .bz2')
    parser.add_argument('--subset', type=Path, required=True, help='yfcc100m_subset_data.tsv')
    parser.add_argument('--downloaded', type=Path, help='.npy of the rows that have an image')
    parser.add_argument('--out', type=Path, required=True, help='folder to make')
    args = parser.parse_args(arguments)
    try:
        rows, photos = read_subset(args.subset)
        if args.downloaded:
            kept = np.isin(rows, read_downloaded(args.downloaded))
            rows, photos = rows[kept], photos[kept]
        with CaptionTableWriter(args.out, resume=True, source='YFCC15M') as writer:
            state = convert(args.metadata, rows, photos, writer)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    table = CaptionTable(args.out)
    print(f'{args.out}: {len(table):,} photographs (the SLIP authors: {EXPECTED:,})')
    missing = len(rows) - np.count_nonzero(state.seen)
    print(f'left out: {state.empty:,} without a caption, {missing:,} not in the metadata')


if __name__ == '__main__':
    main()
