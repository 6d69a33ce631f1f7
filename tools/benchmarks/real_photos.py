"""Images without captions on real photographs: ``python tools/benchmarks/real_photos.py``.

Of 60,000 photographs of Tiny ImageNet, shrunk to 32 x 32, all, a tenth or a fiftieth have captions
made of the name of what they show. CLIP and SLIP train on those that have; SLIP also with those
that have none; SimCLR on all, without captions; and SLIP once more on those that have, from the
weights of a SimCLR. All trainings take the same processor time; docs/evidence.md lists the trials
that chose their settings. What is judged are the 10,000 validation photographs: zero-shot, and kNN
and a linear probe of the features that learn from the captioned photographs.

``DATA`` holds ``train.parquet`` and ``val.parquet`` (columns ``image``, ``label``, ``names``).
Everything goes below ``--out``; finished runs are kept, so that the comparison goes on where it
stopped.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from comparison import ROOT, Run, combined, in_parallel, interval, step_costs
from pyarrow import parquet
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

CONFIGS = ROOT / 'configs' / 'benchmarks' / 'real_photos'
TEMPLATES = (
    'a photo of a {}.',
    'a picture of a {}.',
    'a small photo of a {}.',
    'this is a {}.',
    '{}',
)
EPOCHS, BATCH = 10, 128
# Photographs of each of the 200 names that have a caption, by their share in percent.
CAPTIONED = {100: 300, 10: 30, 2: 6}
# The features of more photographs would take longer to classify than the training takes.
MOST_LABELLED = 60
# Share of the time that SimCLR takes where it comes first.
FIRST = 0.7


@dataclass(frozen=True)
class Method:
    """A line of the plot.

    Attributes:
        title: Its name.
        config: Its file.
        trained: Shares of captions that it is trained with.
        evaluated: Shares of captions that kNN and linear probe learn from; those of the training.
        after: What trains before it, on all photographs; it starts from those weights.
    """

    title: str
    config: str
    trained: tuple[int, ...]
    evaluated: tuple[int, ...] = ()
    after: 'Method | None' = None

    @property
    def path(self) -> Path:
        return CONFIGS / f'{self.config}.py'


CLIP = Method('CLIP', 'clip_tiny_photos', (100, 10, 2))
SLIP = Method('SLIP', 'slip_tiny_photos', (100, 10, 2))
BARE = Method('SLIP + bare images', 'slip_tiny_photos_few-captions', (10, 2))
SIMCLR = Method('SimCLR on all images', 'simclr_tiny_photos', (100,), (100, 10, 2))
STAGED = Method('SimCLR, then SLIP', 'slip_tiny_photos_after-simclr', (10, 2), after=SIMCLR)
METHODS = dict(clip=CLIP, slip=SLIP, bare=BARE, simclr=SIMCLR, staged=STAGED)
# Column -> key of the metrics.
COLUMNS = {
    'zero-shot top-1': 'zero_shot/photos_top1',
    'top-5': 'zero_shot/photos_top5',
    'kNN': 'knn/photos_top1',
    'linear': 'linear/photos_top1',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of the Parquet files')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/real_photos'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--captions',
        type=int,
        nargs='+',
        choices=CAPTIONED,
        default=list(CAPTIONED),
        help='shares of photographs with a caption, in percent; SimCLR trains on all without any',
    )
    parser.add_argument(
        '--methods', nargs='+', choices=METHODS, default=list(METHODS), help='which are trained'
    )
    parser.add_argument('--minutes', type=float, default=3, help='processor time of a training')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time, a thread each')
    return parser.parse_args()


def prepare(source: Path, target: Path, seeds: Iterable[int]) -> None:
    """Write photographs as files, and the tables of each seed, where they are not there yet.

    ``target`` then has ``train/`` and ``val/``, the task ``photos.json``, ``val.txt`` (path and
    label), and ``SHARE_seedSEED/`` with ``captioned.jsonl``, ``bare.jsonl`` (the other
    photographs) and ``labelled.txt``. The captioned ones are drawn with the seed, equally many of
    each name; those of 2 % are among those of 10 %.
    """
    tables = {split: parquet.read_table(source / f'{split}.parquet') for split in ('train', 'val')}
    labels = {split: table['label'].to_numpy() for split, table in tables.items()}
    val = zip(labels['val'].tolist(), tables['val']['names'].to_pylist(), strict=True)
    classes = [name for _, name in sorted({label: names[0] for label, names in val}.items())]
    for split, table in tables.items():
        with _new_folder(target / split) as folder:
            for place, image in enumerate(table['image'] if folder else ()):
                (folder / f'{place:05}.webp').write_bytes(image.as_py())
    with _new_folder(target / 'task') as folder:
        if folder:
            task = dict(name='photos', classes=classes, templates=TEMPLATES)
            (folder / 'photos.json').write_text(json.dumps(task))
            _write_labelled(folder / 'val.txt', 'val', range(len(labels['val'])), labels['val'])
    captions = [[template.format(name) for template in TEMPLATES] for name in classes]
    for seed in seeds:
        ranks = _ranks(labels['train'], seed)
        for share, number in CAPTIONED.items():
            with _new_folder(target / f'{share}_seed{seed}') as folder:
                if folder:
                    _write_tables(folder, ranks, number, labels['train'], captions)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path | None]:
    """A folder that gets its name when it is complete; None if it is there."""
    if path.is_dir():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as scratch:
        unfinished = Path(scratch, path.name)
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(path)


def _ranks(labels: np.ndarray, seed: int) -> np.ndarray:
    """Place of each photograph among those of its name, in an order drawn with the seed."""
    order = np.random.default_rng(seed).permutation(len(labels))
    ranks = np.empty_like(order)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        ranks[own] = np.arange(len(own))
    return ranks


def _write_tables(
    folder: Path, ranks: np.ndarray, number: int, labels: np.ndarray, captions: list[list[str]]
) -> None:
    rows: dict[bool, list[str]] = {True: [], False: []}
    for place, (rank, label) in enumerate(zip(ranks, labels, strict=True)):
        row = dict(image=f'train/{place:05}.webp')
        captioned = bool(rank < number)
        if captioned:
            row['caption'] = captions[label]
        rows[captioned].append(json.dumps(row))
    (folder / 'captioned.jsonl').write_text('\n'.join(rows[True]))
    (folder / 'bare.jsonl').write_text('\n'.join(rows[False]))
    chosen = np.flatnonzero(ranks < min(number, MOST_LABELLED))
    _write_labelled(folder / 'labelled.txt', 'train', chosen, labels)


def _write_labelled(path: Path, split: str, places: Iterable[int], labels: np.ndarray) -> None:
    path.write_text(''.join(f'{split}/{place:05}.webp {labels[place]}\n' for place in places))


def training_options(method: Method, data: Path, share: int, seed: int, length: int) -> dict:
    """Settings of a training by dotted key."""
    source = 'train_dataloader.dataset.datasets'
    options = {
        'randomness.seed': seed,
        'train_dataloader.dataset.length': length,
        f'{source}.0.data_root': data,
        f'{source}.0.ann_file': f'{share}_seed{seed}/captioned.jsonl',
    }
    if method is BARE:
        options |= {
            f'{source}.1.data_root': data,
            f'{source}.1.ann_file': f'{share}_seed{seed}/bare.jsonl',
        }
    return options


def test_options(data: Path, share: int, seed: int) -> dict:
    """Settings of an evaluation by dotted key."""
    sets = 'test_dataloader.dataset.datasets'
    options = {f'{sets}.reference.dataset.ann_file': f'{share}_seed{seed}/labelled.txt'}
    for part in ('val', 'reference'):
        options[f'{sets}.{part}.task'] = data / 'task' / 'photos.json'
        options[f'{sets}.{part}.dataset.data_root'] = data
    return options


def show(results: dict[tuple[Method, int], list[dict]], console: Console) -> None:
    """Print the table, and the lead of what uses bare images, seed against seed."""
    seeds = len(next(iter(results.values())))
    table = Table(
        title=f'Accuracy in %, mean and 95 % interval over {seeds} seeds and the images',
        box=MARKDOWN,
    )
    for name in ('captions', 'method', 'steps', 'CPU min', *COLUMNS):
        table.add_column(name, justify='left' if name == 'method' else 'right')
    for share in CAPTIONED:
        for (method, own), runs in results.items():
            if own == share:
                cells = [
                    '{:.1f} ± {:.1f}'.format(*combined(runs, key)) if key in runs[0] else '-'
                    for key in COLUMNS.values()
                ]
                minutes = np.mean([run['cpu_min'] for run in runs])
                steps = ' + '.join(f'{number:,}' for number in runs[0]['steps'])
                table.add_row(f'{share} %', method.title, steps, f'{minutes:.1f}', *cells)
    for share in BARE.trained:
        for ours, other in product((BARE, STAGED), (CLIP, SLIP, SIMCLR)):
            if not {(ours, share), (other, share)} <= results.keys():
                continue
            pairs = list(zip(results[ours, share], results[other, share], strict=True))
            cells = [
                '{:+.1f} ± {:.1f}'.format(*interval([one[key] - two[key] for one, two in pairs]))
                if key in pairs[0][1]
                else '-'
                for key in COLUMNS.values()
            ]
            table.add_row(f'{share} %', f'{ours.title} - {other.title}', '', '', *cells)
    console.print(table)


def plot(results: dict[tuple[Method, int], list[dict]], path: Path) -> None:
    """Accuracy over the share of captions, zero-shot and linear."""
    columns = {'zero-shot top-1': 'Zero-shot', 'linear': 'Linear probe of the features'}
    figure, axes = plt.subplots(1, len(columns), figsize=(9, 4), layout='constrained')
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        key = COLUMNS[column]
        for shift, method in enumerate(METHODS.values()):
            shares = [share for share in CAPTIONED if (method, share) in results]
            shares = [share for share in shares if key in results[method, share][0]]
            if shares:
                means, halves = zip(
                    *(combined(results[method, share], key) for share in shares), strict=True
                )
                ax.errorbar(
                    [share * 1.04 ** (shift - 2) for share in shares],
                    means,
                    halves,
                    marker='o',
                    capsize=3,
                    color=f'C{shift}',
                    label=method.title,
                )
        ax.set_xscale('log')
        ax.set_xticks(list(CAPTIONED), [f'{share} %' for share in CAPTIONED])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set(xlabel='photographs with a caption', ylabel='top-1 accuracy in %', title=title)
        ax.grid(alpha=0.3)
    axes[-1].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    args = parse_args()
    methods = [METHODS[name] for name in args.methods]
    out = args.out.absolute()
    data = out / 'data'
    console = Console(width=None if sys.stdout.isatty() else 150)
    prepare(args.data, data, args.seeds)
    costs = step_costs(
        {
            method.config: (method.path, training_options(method, data, 10, args.seeds[0], 1280))
            for method in METHODS.values()
        },
        out / 'costs.json',
    )

    def planned(method: Method, part: float = 1) -> int:
        """Steps of a training, or of a part of its time; a multiple of the epochs."""
        return EPOCHS * round(60 * part * args.minutes / costs[method.config].step / EPOCHS)

    def run_of(method: Method, share: int, seed: int, steps: int, **options: object) -> Run:
        folder = out / f'{method.config}_{share}_{steps}_seed{seed}'
        own = training_options(method, data, share, seed, steps // EPOCHS * BATCH)
        return Run(folder, method.path, EPOCHS, own | options)

    # SimCLR's part needs no captions: one training for all shares.
    firsts = {
        (method, seed): run_of(method.after, 100, seed, planned(method.after, FIRST))
        for method in methods
        if method.after
        for seed in args.seeds
    }
    for method in methods:
        number = f'{planned(method, 1 - FIRST if method.after else 1):,} steps'
        if method.after:
            number = f'{planned(method.after, FIRST):,} steps of {method.after.title} and {number}'
        cost = 1000 * costs[method.config].step
        console.print(f'{method.title}: {cost:.0f} ms of processor time a step, {number}')

    def train_and_judge(task: tuple[int, Method, int]) -> dict[int, dict]:
        """Figures by the share of captions that kNN and linear probe learn from."""
        seed, method, share = task
        steps, spent, options = [planned(method)], 0.0, {}
        if method.after:
            steps = [planned(method.after, FIRST), planned(method, 1 - FIRST)]
            first = firsts[method, seed]
            spent, options = first.cpu_min, dict(load_from=first.folder / f'epoch_{EPOCHS}.pth')
        run = run_of(method, share, seed, steps[-1], **options)
        run.train()
        figures = {
            judged: run.evaluate(f'metrics_{judged}', test_options(data, judged, seed))
            for judged in method.evaluated or (share,)
            if judged in args.captions
        }
        return {
            judged: dict(metrics, cpu_min=metrics['cpu_min'] + spent, steps=steps)
            for judged, metrics in figures.items()
        }

    tasks = [
        (seed, method, share)
        for method in methods
        for share in method.trained
        if share in args.captions or method is SIMCLR
        for seed in args.seeds
    ]
    in_parallel('first parts', Run.train, list(firsts.values()), args.jobs, console)
    results = defaultdict(list)
    for (_, method, _), figures in zip(
        tasks, in_parallel('runs', train_and_judge, tasks, args.jobs, console), strict=True
    ):
        for share, metrics in figures.items():
            results[method, share].append(metrics)
    (out / 'evidence.json').write_text(
        json.dumps(
            [
                dict(method=method.title, captions=share, runs=runs)
                for (method, share), runs in results.items()
            ],
            indent=1,
        )
    )
    if len(args.seeds) > 1:
        show(results, console)
        plot(results, out / 'evidence.png')


if __name__ == '__main__':
    main()
