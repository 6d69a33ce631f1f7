"""SLIP against CLIP and SimCLR on the embedded emoji: ``python tools/benchmarks/paper_claim.py``.

Trains every method with several seeds on the same drawings, evaluates it on a vendor that none was
trained on, and prints the table of the SLIP paper: zero-shot, linear and kNN accuracy, at an equal
number of samples seen and, for CLIP, at SLIP's compute. Finished runs are kept, so that an
interrupted comparison goes on where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs' / 'benchmarks' / 'paper_claim'


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    title: str
    config: str
    epochs: int

    def folder(self, out: Path, seed: int) -> Path:
        return out / f'{self.config}_{self.epochs}e_seed{seed}'

    @property
    def path(self) -> Path:
        return CONFIGS / f'{self.config}_vit-tiny_emoji.py'


# A step of SLIP took about 1.8 times the processor time of one of CLIP; the table gives the times
# that were really spent.
METHODS = (
    Method('CLIP', 'clip', 10),
    Method('SimCLR', 'simclr', 10),
    Method('SLIP', 'slip', 10),
    Method("CLIP, SLIP's compute", 'clip', 18),
)
# Column -> key of the metrics.
COLUMNS = {
    'zero-shot top-1': 'zero_shot/unseen_top1',
    'top-5': 'zero_shot/unseen_top5',
    'Fluent top-1': 'zero_shot/val_top1',
    'concepts top-1': 'zero_shot/concepts_top1',
    'linear': 'linear/kinds_top1',
    'kNN': 'knn/kinds_top1',
}
# Two-sided 95 % quantile of Student's t by degrees of freedom.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('work_dirs/paper_claim'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time, a thread each')
    args = parser.parse_args()
    if len(set(args.seeds)) not in range(2, len(_STUDENT) + 2):
        parser.error(f'--seeds takes 2 to {len(_STUDENT) + 1} different seeds')
    return args


def call(tool: str, *arguments: object, log: Path) -> float:
    """Run a tool on one thread and return the processor time of it and its workers, in seconds."""
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    with log.open('w', encoding='utf-8') as file:
        process = subprocess.Popen(
            command, env=dict(os.environ, OMP_NUM_THREADS='1'), stdout=file, stderr=file
        )
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f'{" ".join(command)} failed: see {log}')
    return used.ru_utime + used.ru_stime


def train(method: Method, seed: int, out: Path) -> None:
    """Train and note the cost, unless that has been done."""
    folder = method.folder(out, seed)
    cost = folder / 'cost.json'
    if cost.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    seconds = call(
        'train.py',
        method.path,
        '--work-dir',
        folder,
        '--cfg-options',
        f'randomness.seed={seed}',
        f'train_cfg.max_epochs={method.epochs}',
        f'default_hooks.checkpoint.interval={method.epochs}',
        log=folder / 'train.log',
    )
    # Written last: it says that the run is whole.
    cost.write_text(json.dumps(dict(cpu_s=seconds, wall_s=time.perf_counter() - begin)))


def evaluate(method: Method, seed: int, out: Path) -> dict[str, float]:
    """Metrics of the last checkpoint; evaluated once."""
    folder = method.folder(out, seed)
    metrics = folder / 'metrics.json'
    if not metrics.is_file():
        call(
            'test.py',
            method.path,
            folder / f'epoch_{method.epochs}.pth',
            '--work-dir',
            folder / 'test',
            '--out',
            metrics,
            log=folder / 'test.log',
        )
    cost = json.loads((folder / 'cost.json').read_text())
    return dict(json.loads(metrics.read_text()), cpu_min=cost['cpu_s'] / 60)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % t interval."""
    half = _STUDENT[len(values) - 1] * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


def show(results: dict[Method, list[dict]], console: Console) -> None:
    """Print the table, and SLIP's lead in every column, seed against seed."""
    seeds = len(next(iter(results.values())))
    table = Table(title=f'Accuracy in %, mean and 95 % t interval over {seeds} seeds')
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
        table.add_row(method.title, str(method.epochs), f'{minutes:.1f}', *cells(runs))
    table.add_section()
    slip = next(runs for method, runs in results.items() if method.config == 'slip')
    for method, runs in results.items():
        if method.config != 'slip':
            table.add_row(f'SLIP - {method.title}', '', '', *cells(slip, runs))
    console.print(table)


def main() -> None:
    args = parse_args()
    runs = [(method, seed) for seed in args.seeds for method in METHODS]
    console = Console(width=None if sys.stdout.isatty() else 150)
    with Progress(console=console) as progress, ThreadPoolExecutor(args.jobs) as pool:
        for step in (train, evaluate):
            task = progress.add_task(step.__name__, total=len(runs))
            done = {}
            for run, result in zip(
                runs, pool.map(lambda run, step=step: step(*run, args.out), runs), strict=True
            ):
                done[run] = result
                progress.advance(task)
    results = {method: [done[method, seed] for seed in args.seeds] for method in METHODS}
    (args.out / 'claim.json').write_text(
        json.dumps({method.title: figures for method, figures in results.items()}, indent=1)
    )
    show(results, console)


if __name__ == '__main__':
    main()
