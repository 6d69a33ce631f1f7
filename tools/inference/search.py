r"""Search a folder of images by words or by an image.

    python tools/inference/search.py CONFIG CHECKPOINT photos --text 'a red chair' --out hits.png
    python tools/inference/search.py CONFIG CHECKPOINT photos --image chair.jpg

The first search embeds the folder into an index; later ones embed what is new or was changed.
"""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmslip.apis import ImageRetrievalInferencer
from mmslip.apis.command_line import (
    add_model_arguments,
    add_reading_arguments,
    default_index,
    draw_hits,
    plain_errors,
    save_json,
    save_picture,
)
from mmslip.apis.retrieve import IndexChanges


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Search a folder of images.')
    add_model_arguments(parser)
    parser.add_argument('folder', type=Path, help='images, with those in folders below')
    parser.add_argument(
        '--text', nargs='+', metavar='WORDS', default=[], help='texts to search for'
    )
    parser.add_argument(
        '--image', nargs='+', metavar='FILE', default=[], help='images to search for'
    )
    parser.add_argument(
        '--index', type=Path, help='folder of the index (default: work_dirs/index/NAME OF FOLDER)'
    )
    parser.add_argument('--topk', type=int, default=8, help='images found for each (default: 8)')
    parser.add_argument('--json', metavar='FILE', help='write the results')
    parser.add_argument('--out', metavar='PICTURE', help='draw what was found (.png, .jpg)')
    parser.add_argument(
        '--approximate', action='store_true', default=None, help='search by a graph (needs usearch)'
    )
    add_reading_arguments(parser)
    return parser.parse_args()


def show_changes(changes: IndexChanges, images: int, index: Path) -> None:
    """Print what the update did."""
    print(
        f'{index}: {images} images; {changes.embedded} embedded, {changes.reused} recognised, '
        f'{changes.removed} removed, {len(changes.unreadable)} cannot be read'
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


def main() -> None:
    args = parse_args()
    index = args.index or default_index(args.folder)
    with plain_errors():
        inferencer = ImageRetrievalInferencer(
            args.config,
            args.folder,
            index,
            args.checkpoint,
            args.device,
            args.batch_size,
            args.num_workers,
        )
        show_changes(inferencer.changes, len(inferencer.index), index)
        results = inferencer(args.text, args.image, args.topk, args.approximate)
        if results:
            show(results)
        if args.json:
            save_json(results, args.json)
        if args.out:
            save_picture(draw_hits(results, args.folder), args.out)
    for path in filter(None, (args.json, args.out)):
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
