"""SLIP against CLIP and SimCLR on the embedded emoji: ``python tools/benchmarks/paper_claim.py``.

Trains every method with several seeds on the same drawings for the same processor time, evaluates
it on a vendor that none was trained on, and prints the table of the SLIP paper: zero-shot, linear
and kNN accuracy. Finished runs are kept, so that an interrupted comparison goes on where it
stopped.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from comparison import ROOT, Run, in_parallel, interval, step_costs
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

CONFIGS = ROOT / 'configs' / 'benchmarks' / 'paper_claim'
# Name of the method -> its config.
METHODS = {
    'CLIP': CONFIGS / 'clip_tiny_emoji.py',
    'SimCLR': CONFIGS / 'simclr_tiny_emoji.py',
    'SLIP': CONFIGS / 'slip_tiny_emoji.py',
}
# Column -> key of the metrics.
COLUMNS = {
    'zero-shot top-1': 'zero_shot/unseen_top1',
    'top-5': 'zero_shot/unseen_top5',
    'Fluent top-1': 'zero_shot/val_top1',
    'concepts top-1': 'zero_shot/concepts_top1',
    'linear': 'linear/kinds_top1',
    'kNN': 'knn/kinds_top1',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('work_dirs/paper_claim'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--minutes', type=float, default=8, help='processor time of a training')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time, a thread each')
    return parser.parse_args()


def show(results: dict[str, list[dict]], console: Console) -> None:
    """Print the table, and SLIP's lead in every column, seed against seed."""
    seeds = len(results['SLIP'])
    table = Table(title=f'Accuracy in %, mean and 95 % t interval over {seeds} seeds', box=MARKDOWN)
    table.add_column('method')
    for name in ('epochs', 'CPU min', *COLUMNS):
        table.add_column(name, justify='right')

    def cells(runs: list[dict], against: list[dict] | None = None) -> list[str]:
        texts = []
        for key in COLUMNS.values():
            if key not in runs[0] or (against and key not in against[0]):
                texts.append('-')
                continue
            values = np.array([run[key] for run in runs])
            if against:
                values = values - np.array([run[key] for run in against])
            mean, half = interval(values)
            texts.append(f'{mean:+.1f} ± {half:.1f}' if against else f'{mean:.1f} ± {half:.1f}')
        return texts

    for method, runs in results.items():
        minutes = np.mean([run['cpu_min'] for run in runs])
        table.add_row(method, str(runs[0]['epochs']), f'{minutes:.1f}', *cells(runs))
    for method, runs in results.items():
        if method != 'SLIP':
            table.add_row(f'SLIP - {method}', '', '', *cells(results['SLIP'], runs))
    console.print(table)


def main() -> None:
    args = parse_args()
    out = args.out.absolute()
    console = Console(width=None if sys.stdout.isatty() else 150)
    costs = step_costs({name: (path, {}) for name, path in METHODS.items()}, out / 'costs.json')
    epochs = {name: max(2, round(60 * args.minutes / cost.epoch)) for name, cost in costs.items()}
    for name, cost in costs.items():
        console.print(
            f'{name}: {1000 * cost.step:.0f} ms of processor time a step, {epochs[name]} epochs'
        )

    def train_and_judge(task: tuple[int, str]) -> dict[str, float]:
        seed, name = task
        run = Run(
            out / f'{METHODS[name].stem}_{epochs[name]}e_seed{seed}',
            METHODS[name],
            epochs[name],
            {'randomness.seed': seed},
        )
        run.train()
        return dict(run.evaluate(), epochs=epochs[name])

    tasks = [(seed, name) for seed in args.seeds for name in METHODS]
    figures = in_parallel('runs', train_and_judge, tasks, args.jobs, console)
    by_task = dict(zip(tasks, figures, strict=True))
    results = {name: [by_task[seed, name] for seed in args.seeds] for name in METHODS}
    (out / 'claim.json').write_text(json.dumps(results, indent=1))
    show(results, console)


if __name__ == '__main__':
    main()
