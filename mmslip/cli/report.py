"""Show one or several runs on one page: ``mmslip report WORK_DIR...``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmslip.analysis.report import read_runs, write_report
from mmslip.cli.errors import plain_errors
from mmslip.cli.parser import CommandParser


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        'report',
        description='Write one HTML file, which needs neither network nor other files, with the '
        'curves, figures and pictures of runs side by side; and the figures as JSON, CSV and '
        'Markdown beside it.',
    )
    parser.add_argument('work_dirs', nargs='+', help='work folders of trainings or tests')
    parser.add_argument('--out', type=Path, help='HTML file (default: report.html in the first)')
    parser.add_argument(
        '--published',
        nargs='*',
        metavar='NAME',
        help='published models to show beside, by the names of their configs (default: the one '
        'that a run is named after, and CLIP and SLIP of ViT-B)',
    )
    return parser.parse_args(arguments)


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    runs = read_runs(args.work_dirs)
    out = args.out or Path(args.work_dirs[0], 'report.html')
    paths = write_report(runs, out, args.published)
    for run in runs:
        for note in run.notes:
            print(f'{run.name}: {note}')
    print(f'wrote {", ".join(map(str, paths))}')
