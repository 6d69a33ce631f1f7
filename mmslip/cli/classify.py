r"""Classify images among labels of your own.

mmslip classify CONFIG CHECKPOINT a.jpg photos --labels cat 'dog|hound'
mmslip classify CONFIG CHECKPOINT photos --task food101 --json food.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpretrain.utils import progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmslip.apis import ZeroShotClassificationInferencer
from mmslip.cli.errors import plain_errors
from mmslip.cli.inference import (
    add_model_arguments,
    add_reading_arguments,
    draw_labels,
    read_labels,
    save_json,
    save_picture,
)
from mmslip.cli.parser import CommandParser, at_least


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser('classify', description='Classify images among labels of your own.')
    add_model_arguments(parser)
    parser.add_argument('images', nargs='+', help='image files and folders')
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        '--labels',
        nargs='+',
        metavar='NAME',
        help="labels, with synonyms as 'dog|hound', or a file of them: a line each, or a JSON list",
    )
    choice.add_argument(
        '--task', help='labels and templates of an evaluation, by name or as a JSON file'
    )
    parser.add_argument(
        '--templates',
        nargs='+',
        metavar='TEXT',
        help="prompts with {} for the label (default: the config's, or 'a photo of a {}.')",
    )
    parser.add_argument(
        '--topk', type=at_least(1), default=5, help='labels of an image (default: 5)'
    )
    parser.add_argument('--json', metavar='FILE', help='write the results')
    parser.add_argument('--out', metavar='PICTURE', help='draw images and labels (.png, .jpg)')
    add_reading_arguments(parser)
    return parser.parse_args(arguments)


def show(results: list[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table()
    for column in ('image', 'label', 'score', 'further labels'):
        table.add_column(column, overflow='fold', justify='right' if column == 'score' else 'left')
    for result in results:
        if 'error' in result:
            table.add_row(
                escape(result['image']), '[red]cannot be read', '', escape(result['error'])
            )
            continue
        first, *others = result['top']
        further = ', '.join(f'{top["label"]} {top["score"]:.1%}' for top in others)
        row = result['image'], first['label'], f'{first["score"]:.1%}', further
        table.add_row(*map(escape, row))
    Console().print(table)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    progress.disable_progress_bar = True  # it would stand in the way of the table
    labels = args.labels and read_labels(args.labels)
    if isinstance(labels, dict):
        labels = [*labels.values()]
    inferencer = ZeroShotClassificationInferencer(args.config, args.checkpoint, args.device)
    results = inferencer(
        args.images,
        labels=labels,
        templates=args.templates,
        task=args.task,
        topk=args.topk,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    show(results)
    if args.json:
        save_json(results, args.json)
    if args.out:
        save_picture(draw_labels(results), args.out)
    for path in filter(None, (args.json, args.out)):
        print(f'wrote {Path(path)}')
