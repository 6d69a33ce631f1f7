"""Turn a JSONL, CSV or TSV file of images and captions into a caption table.

The rows are those that `mmslip.ImageTextDataset` reads. The table is for sets too large to hold in
memory; `mmslip.TableDataset` reads it:

    python tools/dataset_converters/to_table.py data/mine/train.jsonl data/mine/train.table \
        --caption-keys title description

Rows stream through, so memory does not grow with the file. A run that is interrupted leaves nothing
under the final name; start it again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

from mmslip.datasets import CaptionTable
from mmslip.datasets.image_text import read_cells, read_rows


def read_pairs(
    path: Path, image_key: str, caption_keys: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Image path and captions of every row, checked as the data set does."""
    for line, row in read_rows(path):
        where = f'{path}, line {line}'
        image, *_ = read_cells(row, [image_key], where)
        yield image, read_cells(row, caption_keys, where)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the converter."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', type=Path, help='.jsonl, .csv or .tsv file')
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--image-key', default='image', help='column of the image path')
    parser.add_argument(
        '--caption-keys', nargs='+', default=['caption'], help='columns of captions'
    )
    args = parser.parse_args(arguments)
    rows = track(read_pairs(args.source, args.image_key, args.caption_keys), args.source.name)
    try:
        table = CaptionTable.write(args.out, rows, source=args.source.name)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{error}') from error
    print(f'{args.out}: {len(table):,} rows')


if __name__ == '__main__':
    main()
