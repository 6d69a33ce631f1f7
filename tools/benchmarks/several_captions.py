"""All captions of an image against one drawn: ``python tools/benchmarks/several_captions.py``.

CLIP trains on photographs with five captions each. At a visit it meets one of them, drawn, or all
five, each of which is a positive of its image. Both trainings take the same processor time, so that
five captions pay for themselves in fewer steps. What is judged is retrieval, from images to
captions and back, among photographs that were left out.

``DATA`` holds ``captions.jsonl`` (``image`` and ``caption``, a list) and ``images/``. Everything
goes below ``--out``; finished runs are kept, so that the comparison goes on where it stopped.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from comparison import ROOT, Run, combined, in_parallel, interval, step_costs
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from mmslip.datasets.io.split import write_split

CONFIGS = ROOT / 'configs' / 'benchmarks' / 'several_captions'
# Name of the method -> its config.
METHODS = {
    'one, drawn': CONFIGS / 'clip_tiny_flickr.py',
    'all five': CONFIGS / 'clip_tiny_flickr_five-captions.py',
}
EPOCHS, BATCH = 10, 128
# Column -> key of the metrics.
COLUMNS = {
    f'{way} R@{k}': f'retrieval/photos_{key}_r{k}'
    for way, key in (('to text', 'i2t'), ('to image', 't2i'))
    for k in (1, 5, 10)
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of photographs')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/several_captions'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--minutes', type=float, default=2, help='processor time of a training')
    parser.add_argument('--held-out', type=int, default=200, help='photographs that are judged')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time, a thread each')
    return parser.parse_args()


def hold_out(data: Path, split: Path, number: int) -> None:
    """Write a split that keeps random photographs for the evaluation, the same at every call."""
    rows = len((data / 'captions.jsonl').read_text(encoding='utf-8').splitlines())
    chosen = np.random.default_rng(0).permutation(rows)[:number]
    write_split(split, rows, held_out=chosen.tolist())


def training_options(data: Path, split: Path, seed: int, length: int) -> dict:
    """Settings of a training by dotted key."""
    source = 'train_dataloader.dataset.datasets.0'
    return {
        'randomness.seed': seed,
        'train_dataloader.dataset.length': length,
        f'{source}.data_root': data,
        f'{source}.subset.split': split,
    }


def test_options(data: Path, split: Path) -> dict:
    """Settings of an evaluation by dotted key."""
    source = 'test_dataloader.dataset.dataset'
    return {f'{source}.data_root': data, f'{source}.subset.split': split}


def show(results: dict[str, list[dict]], console: Console) -> None:
    """Print the table, and the lead of all captions, seed against seed."""
    seeds = len(next(iter(results.values())))
    table = Table(
        title=f'Recall in %, mean and 95 % interval over {seeds} seeds and the photographs',
        box=MARKDOWN,
    )
    table.add_column('captions')
    for name in ('steps', 'CPU min', *COLUMNS):
        table.add_column(name, justify='right')
    for name, runs in results.items():
        cells = ['{:.1f} ± {:.1f}'.format(*combined(runs, key)) for key in COLUMNS.values()]
        minutes = np.mean([run['cpu_min'] for run in runs])
        table.add_row(name, f'{runs[0]["steps"]:,}', f'{minutes:.1f}', *cells)
    one, several = results.values()
    leads = [
        interval([ours[key] - other[key] for ours, other in zip(several, one, strict=True)])
        for key in COLUMNS.values()
    ]
    table.add_row('all - one', '', '', *('{:+.1f} ± {:.1f}'.format(*lead) for lead in leads))
    console.print(table)


def main() -> None:
    args = parse_args()
    data, out = args.data.absolute(), args.out.absolute()
    console = Console(width=None if sys.stdout.isatty() else 160)
    split = out / 'split.json'
    out.mkdir(parents=True, exist_ok=True)
    hold_out(data, split, args.held_out)
    costs = step_costs(
        {
            name: (path, training_options(data, split, args.seeds[0], 10 * BATCH))
            for name, path in METHODS.items()
        },
        out / 'costs.json',
    )
    steps = {name: round(60 * args.minutes / cost.step / EPOCHS) for name, cost in costs.items()}
    for name, cost in costs.items():
        console.print(
            f'{name}: {1000 * cost.step:.0f} ms of processor time a step, '
            f'{EPOCHS * steps[name]:,} steps'
        )

    def train_and_judge(task: tuple[int, str]) -> dict[str, float]:
        seed, name = task
        config, number = METHODS[name], EPOCHS * steps[name]
        run = Run(
            out / f'{config.stem}_{number}_seed{seed}',
            config,
            EPOCHS,
            training_options(data, split, seed, steps[name] * BATCH),
        )
        run.train()
        return dict(run.evaluate(options=test_options(data, split)), steps=number)

    tasks = [(seed, name) for seed in args.seeds for name in METHODS]
    figures = in_parallel('runs', train_and_judge, tasks, args.jobs, console)
    by_task = dict(zip(tasks, figures, strict=True))
    results = {name: [by_task[seed, name] for seed in args.seeds] for name in METHODS}
    (out / 'evidence.json').write_text(json.dumps(results, indent=1))
    if len(args.seeds) > 1:
        show(results, console)


if __name__ == '__main__':
    main()
