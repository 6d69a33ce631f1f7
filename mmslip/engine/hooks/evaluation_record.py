"""A lasting record of every evaluation of a run."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.utils.data import Dataset

from mmslip.datasets.tasks import query_parts
from mmslip.evaluation.predictions import PredictionKeeper
from mmslip.evaluation.showcase import save_showcase
from mmslip.registry import HOOKS

__all__ = ['EvaluationRecordHook']

_QUERIES = 24  # texts in the similarity matrix


@HOOKS.register_module()
class EvaluationRecordHook(Hook):
    """Record the figures of each validation and test, and what a report shows beside them.

    Every figure becomes a line of ``results.jsonl`` in the work folder: a JSON object of
    ``protocol``, ``task`` and ``metric`` (``zero_shot/pets_top1`` is the metric ``top1`` of the
    task ``pets``; ``linear/imagenet/top1`` is read likewise), ``value`` with its interval ``low``
    and ``high``, ``official`` (whether it is the one figure that the task is judged by),
    ``samples``, ``mode`` (``val`` or ``test``), ``epoch``, ``iter``, ``checkpoint`` (of a test),
    ``time`` and ``experiment``; null where unknown. A set that was left out has ``skipped``, the
    reason, and no value. A figure that is not finite is null.

    For each task with class scores or captions, ``evaluation/TASK`` in the work folder gets the
    worst classes, what is found for some texts, and a similarity matrix of the last evaluation;
    see :func:`mmslip.evaluation.save_showcase`. A test ends with a table on the terminal.

    Args:
        pictures: Copy thumbnails of some evaluation images into the work folder. Without them,
            only figures are recorded.
    """

    # After ZeroShotHook.
    priority = 'VERY_LOW'

    def __init__(self, pictures: bool = True) -> None:
        self.pictures = pictures
        self._loaded: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note how far the loaded model was trained."""
        self._loaded = checkpoint.get('meta', {})

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the last evaluation."""
        self._begin(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        """Forget the last evaluation."""
        self._begin(runner.test_dataloader.dataset)

    def _begin(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._keeper = PredictionKeeper(dataset, _QUERIES) if self.pictures else None

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        """Keep what the pictures need."""
        if self._keeper is not None:
            self._keeper.add(outputs)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record the validation."""
        about = dict(mode='val', epoch=runner.epoch, iter=runner.iter, checkpoint=None)
        self._finish(runner, metrics or {}, about)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record the test and print its table."""
        about = dict(
            mode='test',
            # Of the checkpoint; to ask the runner would build the training data.
            epoch=self._loaded.get('epoch'),
            iter=self._loaded.get('iter'),
            checkpoint=runner.cfg.get('load_from'),
        )
        records = self._finish(runner, metrics or {}, about)
        if is_main_process():
            # Through `print`, above a live line: a console of its own would write into that.
            console = Console()
            with console.capture() as table:
                console.print(_table(records))
            print(table.get(), end='')

    def _finish(self, runner: Runner, metrics: dict, about: dict) -> list[dict]:
        found = self._keeper.collect() if self._keeper is not None else {}
        if not is_main_process():
            return []
        now = datetime.now().astimezone().isoformat(timespec='seconds')
        about = dict(about, time=now, experiment=runner.experiment_name)
        records = [dict(line, **about) for line in _figures(metrics, self._dataset)]
        path = Path(runner.work_dir, 'results.jsonl')
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a', encoding='utf-8') as file:
            file.writelines(
                json.dumps(record, ensure_ascii=False, allow_nan=False) + '\n' for record in records
            )
        for task, predictions in found.items():
            part = self._keeper.parts[task]
            # A task is named by its user, and may hold what a path gives a meaning to.
            folder = Path(runner.work_dir, 'evaluation', re.sub(r'[^\w-]', '_', task))
            save_showcase(folder, part, predictions, dict(task=task, **about))
        return records


def _figures(metrics: Mapping[str, Any], dataset: Dataset) -> Iterator[dict[str, Any]]:
    """One entry for each figure and each set left out."""
    parts = query_parts(dataset)
    meta = getattr(dataset, 'metainfo', {})
    classified = sum('classes' in part.metainfo for part in parts.values())
    for key, value in metrics.items():
        name, _, bound = key.rpartition('_')
        if (bound in ('low', 'high') and name in metrics) or not isinstance(value, Real):
            continue
        if key == 'zero_shot/mean' and classified < 2:
            continue  # the figure of the only set again
        protocol, task, metric = _split(key, parts, type(dataset).__name__.lower())
        part = parts.get(task) or (None if parts else dataset)
        official = part.metainfo.get('metric', 'top1') if task in parts else 'top1'
        yield dict(
            protocol=protocol,
            task=task,
            metric=metric,
            value=_finite(value),
            low=_finite(metrics.get(f'{key}_low')),
            high=_finite(metrics.get(f'{key}_high')),
            official=metric in ((official,) if protocol == 'zero_shot' else ('top1', *_RETRIEVAL)),
            samples=None if part is None else len(part),
        )
    for task, reason in meta.get('skipped', {}).items():
        yield dict(protocol=None, task=task, metric=None, value=None, skipped=reason)


_RETRIEVAL = ('i2t_r1', 't2i_r1')


def _split(key: str, tasks: Mapping[str, Any], alone: str) -> tuple[str | None, str | None, str]:
    """Protocol, task and metric of a figure.

    Task and metric may both hold underscores, so known tasks decide. A data set without a task
    (mmpretrain's) is called as its class, ``alone``.
    """
    protocol, slash, rest = key.partition('/')
    if not slash:
        protocol, rest = None, key
    if '/' in rest:
        return protocol, *rest.rsplit('/', 1)
    known = [task for task in tasks if rest.startswith(f'{task}_')]
    if known:
        task = max(known, key=len)
        return protocol, task, rest.removeprefix(f'{task}_')
    return protocol, None if tasks else alone, rest


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


def _text(metric: str, value: float | None) -> str:
    if value is None:
        return 'not finite'
    return f'{value:.3g}' if metric == 'l2' else f'{value:.2f}'


def _table(records: Sequence[dict]) -> Table:
    table = Table(title='Results')
    for column in ('set', 'protocol', 'metric'):
        table.add_column(column, overflow='fold')
    for column in ('value', '95 % interval', 'samples'):
        table.add_column(column, justify='right')
    for record in records:
        if 'skipped' in record:
            reason = f'[yellow]skipped: {escape(record["skipped"])}[/yellow]'
            table.add_row(escape(record['task']), reason)
            continue
        value, low, high = record['value'], record['low'], record['high']
        table.add_row(
            escape(record['task'] or 'all'),
            escape(record['protocol'] or ''),
            escape(record['metric']),
            _text(record['metric'], value),
            '' if low is None or high is None else f'{low:.2f} to {high:.2f}',
            '' if record['samples'] is None else f'{record["samples"]:,}',
        )
    return table
