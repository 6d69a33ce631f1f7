"""What comparisons of methods share: cost of a step, trainings of equal processor time, intervals.

Every training and evaluation is a process of its own on one thread. What is finished is kept, so
that an interrupted comparison goes on where it stopped. A training that was cut off starts anew:
the time that it took is not known.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import hypot
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader

from mmslip.registry import MODELS

__all__ = ['ROOT', 'Cost', 'Run', 'call', 'combined', 'in_parallel', 'interval', 'step_costs']

ROOT = Path(__file__).parents[2]
# Two-sided 95 % quantile of Student's t by degrees of freedom.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
_Task, _Result = TypeVar('_Task'), TypeVar('_Result')


@dataclass(frozen=True)
class Run:
    """A training, which is kept in a folder.

    Attributes:
        folder: Holds ``cost.json`` once the training has ended.
        config: What it trains.
        epochs: Length, that of the schedule as well.
        options: Further settings by dotted key.
    """

    folder: Path
    config: Path
    epochs: int
    options: Mapping[str, object]

    def train(self) -> None:
        """Train and note the processor time, unless that has been done."""
        cost = self.folder / 'cost.json'
        if cost.is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob('*.pth'):
            unfinished.unlink()
        begin = time.perf_counter()
        options = {
            **self.options,
            'train_cfg.max_epochs': self.epochs,
            'default_hooks.checkpoint.interval': self.epochs,
        }
        seconds = call(
            'train.py',
            self.config,
            *('--work-dir', self.folder),
            *_options(options),
            log=self.folder / 'train.log',
        )
        # Written last: it says that the run is whole.
        cost.write_text(json.dumps(dict(cpu_s=seconds, wall_s=time.perf_counter() - begin)))

    def evaluate(
        self, name: str = 'metrics', options: Mapping[str, object] | None = None
    ) -> dict[str, float]:
        """Metrics of the last checkpoint, evaluated once, and the minutes of ``cpu_min``.

        Args:
            name: What the evaluation is kept as, where there are several.
            options: Its settings by dotted key.
        """
        metrics = self.folder / f'{name}.json'
        if not metrics.is_file():
            call(
                'test.py',
                self.config,
                self.folder / f'epoch_{self.epochs}.pth',
                *('--work-dir', self.folder / 'test', '--out', metrics),
                *_options(options or {}),
                log=self.folder / f'{name}.log',
            )
        return dict(json.loads(metrics.read_text()), cpu_min=self.cpu_min)

    @property
    def cpu_min(self) -> float:
        """Processor time of the training, which has ended, in minutes."""
        return json.loads((self.folder / 'cost.json').read_text())['cpu_s'] / 60


def _options(options: Mapping[str, object]) -> list[str]:
    return ['--cfg-options', *(f'{key}={value}' for key, value in options.items())] * bool(options)


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


def in_parallel(
    name: str,
    work: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    jobs: int,
    console: Console,
) -> list[_Result]:
    """Results of all tasks, ``jobs`` of them at a time."""
    with Progress(console=console) as progress, ThreadPoolExecutor(jobs) as pool:
        return list(progress.track(pool.map(work, tasks), len(tasks), description=name))


@dataclass(frozen=True)
class Cost:
    """Processor time of a training, in seconds.

    Attributes:
        step: A step: loading, model and optimiser.
        epoch: An epoch.
    """

    step: float
    epoch: float


def step_costs(
    experiments: Mapping[str, tuple[Path, Mapping[str, object]]],
    cache: Path,
    steps: int = 30,
    warm_up: int = 5,
) -> dict[str, Cost]:
    """Processor time of a training step of each experiment.

    Measured once, on one thread. The experiments take turns, a step each, so that what else the
    machine does slows all of them alike; the median counts.

    Args:
        experiments: Config and options by name.
        cache: JSON file that keeps the result.
        steps: Steps that count.
        warm_up: Steps before these.
    """
    if cache.is_file():
        return {name: Cost(**cost) for name, cost in json.loads(cache.read_text()).items()}
    torch.set_num_threads(1)
    trainings = {name: _build(*experiment) for name, experiment in experiments.items()}
    turns = {name: _steps(*training) for name, training in trainings.items()}
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(warm_up + steps):
        for name, turn in turns.items():
            begin = time.process_time()
            next(turn)
            taken[name].append(time.process_time() - begin)
    costs = {}
    for name, (_, _, loader) in trainings.items():
        step = float(np.median(taken[name][warm_up:]))
        costs[name] = Cost(step, step * len(loader))
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({name: asdict(cost) for name, cost in costs.items()}, indent=1))
    return costs


def _build(
    config: Path, options: Mapping[str, object]
) -> tuple[BaseModel, OptimWrapper, DataLoader]:
    cfg = Config.fromfile(config, import_custom_modules=False)
    cfg.merge_from_dict(dict(options))
    init_default_scope(cfg.default_scope)
    import_modules_from_strings(**cfg.custom_imports)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    return model.train(), optimizer, Runner.build_dataloader(cfg.train_dataloader, seed=0)


def _steps(model: BaseModel, optimizer: OptimWrapper, loader: DataLoader) -> Iterator[None]:
    """Steps without end."""
    while True:
        for batch in loader:
            model.train_step(batch, optimizer)
            yield


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % t interval."""
    number = len(values)
    half = _STUDENT[number - 1] * np.std(values, ddof=1) / np.sqrt(number)
    return float(np.mean(values)), float(half)


def combined(runs: Sequence[Mapping[str, float]], key: str) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % interval.

    Two intervals are independent and add up by their squares: Student's over the seeds (weights,
    order, and whatever else they draw), and that of each metric over the images judged.
    """
    mean, over_seeds = interval([run[key] for run in runs])
    over_images = np.mean([run[f'{key}_high'] - run[f'{key}_low'] for run in runs]) / 2
    return mean, hypot(over_seeds, over_images)
