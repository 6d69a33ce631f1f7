"""Turn a JSONL, CSV or TSV file of images and captions into a caption table.

The files are those that `mmslip.ImageTextDataset` reads; here rows of one image stay apart. The
table is for sets too large to hold in memory; `mmslip.TableDataset` reads it:

    python tools/dataset_converters/to_table.py data/mine/train.jsonl data/mine/train.table \
        --caption-keys title description

With `--bare`, rows without a caption become images without one. Rows stream through, so memory does
not grow with the file. A run that is interrupted leaves nothing under the final name; start it
again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

from mmslip.datasets import CaptionTable
from mmslip.datasets.image_text import read_pair
from mmslip.datasets.io.rows import read_rows


def read_pairs(
    path: Path, image_key: str, caption_keys: Sequence[str], captions: str
) -> Iterator[tuple[str, list[str]]]:
    """Image path and captions of every row, checked as the data set does."""
    for where, row in read_rows(path):
        image, fields = read_pair(row, image_key, caption_keys, where, captions)
        yield image, fields.get('text', [])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', type=Path, help='.jsonl, .csv or .tsv file')
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--image-key', default='image', help='column of the image path')
    parser.add_argument(
        '--caption-keys', nargs='+', default=['caption'], help='columns of captions'
    )
    parser.add_argument('--bare', action='store_true', help='take images without a caption, too')
    args = parser.parse_args(arguments)
    captions = 'optional' if args.bare else 'required'
    pairs = read_pairs(args.source, args.image_key, args.caption_keys, captions)
    rows = track(pairs, args.source.name)
    try:
        table = CaptionTable.write(args.out, rows, source=args.source.name)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    print(f'{args.out}: {len(table):,} rows')


if __name__ == '__main__':
    main()
