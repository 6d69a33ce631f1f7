"""Show one or several runs on one page: ``python tools/analysis/report.py WORK_DIR...``."""

import argparse
from pathlib import Path

from mmslip.analysis.report import read_runs, write_report


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write one HTML file, which needs neither network nor other files, with the '
        'curves, figures and pictures of runs side by side; and the figures as JSON, CSV and '
        'Markdown beside it.'
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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        runs = read_runs(args.work_dirs)
        out = args.out or Path(args.work_dirs[0], 'report.html')
        paths = write_report(runs, out, args.published)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    for run in runs:
        for note in run.notes:
            print(f'{run.name}: {note}')
    print(f'wrote {", ".join(map(str, paths))}')


if __name__ == '__main__':
    main()
