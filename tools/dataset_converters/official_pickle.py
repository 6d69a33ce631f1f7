"""Turn a list of images and captions of the official SLIP code into a caption table.

It stores YFCC15M as a pickled list of `(index, title, description)`, and CC3M and CC12M as a `.npy`
array of dicts with `image_name` or `image_id`, and `captions`:

    python tools/dataset_converters/official_pickle.py yfcc15m.pkl data/yfcc15m/train.table
    python tools/dataset_converters/official_pickle.py cc12m.npy data/cc12m/train.table

Such files can run code when Python or NumPy load them. Here they are read by `plain_pickle.py`,
which knows plain values and arrays of them and refuses all else. The whole list passes through
memory once (some 6 GB for YFCC15M).
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from plain_pickle import load_npy, load_pickle
from rich.progress import track

from mmslip.datasets import CaptionTable
from mmslip.datasets.io.captions import captions_of

IMAGE_KEYS = ('image_name', 'image_id')
CAPTION_KEYS = ('captions', 'caption')


def read_list(path: Path) -> Sequence:
    """The list in a file."""
    if path.suffix not in ('.pkl', '.pickle', '.npy'):
        raise ValueError(f'{path} must end in .pkl, .pickle or .npy, which says how to read it.')
    rows = load_npy(path) if path.suffix == '.npy' else load_pickle(path)
    if not isinstance(rows, (list, tuple)):
        raise ValueError(f'{path} holds a {type(rows).__name__}; a list of rows is expected.')
    return rows


def pick(row: dict, keys: Sequence[str], where: str) -> object:
    """The value of the first key that a row has."""
    for key in keys:
        if key in row:
            return row[key]
    raise ValueError(
        f'{where} has none of the keys {", ".join(keys)}; it has {", ".join(map(str, row))}. '
        'Name the right ones with --image-keys and --caption-keys.'
    )


def convert(
    rows: Iterable,
    image_keys: Sequence[str],
    caption_keys: Sequence[str],
    counts: Counter,
) -> Iterator[tuple[str, list[str]]]:
    """Image key and captions of every row that has a caption.

    Args:
        rows: Tuples of an index and texts, or dicts.
        image_keys: Of a dict, the keys of the image, the best one first.
        caption_keys: The same of the captions.
        counts: Takes the number of rows left out for lack of a caption.
    """
    for number, row in enumerate(rows):
        where = f'Row {number}'
        if isinstance(row, dict):
            image, texts = pick(row, image_keys, where), pick(row, caption_keys, where)
        elif isinstance(row, (tuple, list)) and len(row) > 1:
            image, *texts = row
        else:
            raise ValueError(f'{where} must be a dict or (index, text, ...), not {row!r:.80}')
        if isinstance(image, bool) or not isinstance(image, (int, str)):
            raise ValueError(f'{where}: the image must be a number or a name, not {image!r:.80}')
        captions = captions_of(dict(captions=texts), ['captions'], where)
        if captions:
            yield str(image), captions
        else:
            counts['without a caption'] += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', type=Path, help='.pkl or .npy file')
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--image-keys', nargs='+', default=IMAGE_KEYS, help='keys of the image')
    parser.add_argument('--caption-keys', nargs='+', default=CAPTION_KEYS, help='of the captions')
    args = parser.parse_args(arguments)
    counts: Counter = Counter()
    try:
        rows = track(read_list(args.source), args.source.name)
        rows = convert(rows, args.image_keys, args.caption_keys, counts)
        table = CaptionTable.write(args.out, rows, source=args.source.name)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    print(f'{args.out}: {len(table):,} rows; {counts["without a caption"]:,} without a caption')


if __name__ == '__main__':
    main()
