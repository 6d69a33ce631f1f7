r"""Search a folder of images by words or by an image.

    mmslip search CONFIG CHECKPOINT photos --text 'a red chair' --out hits.png
    mmslip search CONFIG CHECKPOINT photos --image chair.jpg

The first search embeds the folder into an index; later ones embed what is new or was changed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmslip.apis import ImageRetrievalInferencer
from mmslip.apis.index import ImageIndex
from mmslip.apis.retrieve import IndexChanges
from mmslip.cli.errors import plain_errors
from mmslip.cli.inference import (
    add_model_arguments,
    add_reading_arguments,
    default_index,
    draw_hits,
    save_json,
    save_picture,
)
from mmslip.cli.parser import CommandParser, at_least


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser('search', description='Search a folder of images.')
    add_model_arguments(parser)
    parser.add_argument('folder', type=Path, help='images, with those in folders below')
    parser.add_argument(
        '--text', nargs='+', metavar='WORDS', default=[], help='texts to search for'
    )
    parser.add_argument(
        '--image', nargs='+', metavar='FILE', default=[], help='images to search for'
    )
    parser.add_argument(
        '--index', type=Path, help='folder of the index (default: one in work_dirs/index)'
    )
    parser.add_argument(
        '--topk', type=at_least(1), default=8, help='images found for each (default: 8)'
    )
    parser.add_argument('--json', metavar='FILE', help='write the results')
    parser.add_argument('--out', metavar='PICTURE', help='draw what was found (.png, .jpg)')
    parser.add_argument(
        '--approximate', action='store_true', default=None, help='search by a graph (needs usearch)'
    )
    add_reading_arguments(parser)
    return parser.parse_args(arguments)


def show_changes(changes: IndexChanges, index: ImageIndex) -> None:
    """Print what the update did."""
    if index.moved_from:
        print(f'{index.path}: its images were moved from {index.moved_from} to {index.folder}')
    print(
        f'{index.path}: {len(index)} images; {changes.embedded} embedded, {changes.reused} '
        f'recognised, {changes.removed} removed, {len(changes.unreadable)} cannot be read'
    )
    for reason in list(changes.unreadable.values())[:5]:
        print(f'  {reason}')


def show(results: list[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(show_lines=True)
    for column in ('query', 'image', 'score'):
        table.add_column(column, overflow='fold', justify='right' if column == 'score' else 'left')
    for result in results:
        if 'error' in result:
            table.add_row(escape(result['query']), f'[red]{escape(result["error"])}', '')
            continue
        images = '\n'.join(hit['image'] for hit in result['hits'])
        scores = '\n'.join(f'{hit["score"]:.3f}' for hit in result['hits'])
        table.add_row(escape(result['query']), escape(images), scores)
    Console().print(table)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    index = args.index or default_index(args.folder)
    inferencer = ImageRetrievalInferencer(
        args.config,
        args.folder,
        index,
        args.checkpoint,
        args.device,
        args.batch_size,
        args.num_workers,
    )
    show_changes(inferencer.changes, inferencer.index)
    results = inferencer(args.text, args.image, args.topk, args.approximate)
    if results:
        show(results)
    if args.json:
        save_json(results, args.json)
    if args.out:
        save_picture(draw_hits(results, args.folder), args.out)
    for path in filter(None, (args.json, args.out)):
        print(f'wrote {path}')
