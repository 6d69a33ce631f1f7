"""Accuracy of zero-shot classification, for each task of an evaluation."""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from logging import WARNING

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import Dataset

from mmslip.datasets.tasks import first_of_name, query_parts
from mmslip.evaluation.statistics import (
    Figure,
    mean_per_class,
    names_of,
    percent,
    proportion,
    ratio_of_sums,
    roc_auc,
)
from mmslip.registry import METRICS

__all__ = ['ZeroShotAccuracy', 'merge_names']


@METRICS.register_module()
class ZeroShotAccuracy(BaseMetric):
    """Top-k accuracy and the official metric of each task, in percent, with 95 % intervals.

    Reports ``zero_shot/TASK_topK`` and, where the task's ``metric`` (in ``dataset_meta['tasks']``)
    is another, ``zero_shot/TASK_mean_per_class``, ``zero_shot/TASK_top1_top5_mean`` or
    ``zero_shot/TASK_roc_auc`` (of the difference of the two scores); each figure ``NAME`` with its
    interval, ``NAME_low`` and ``NAME_high``. ``zero_shot/mean`` is the mean of the official metrics
    of all tasks judged, where ``dataset_meta`` has ``tasks``.

    mmpretrain's ``Accuracy`` mixes all samples of an evaluation; here each ``task`` (a data set of
    a ``ConcatDataset``) has its own classes and its own figures. Samples without ``pred_score``
    (references of kNN, captioned images) are passed over. Classes of one name count as one class,
    which the log says; see :func:`mmslip.datasets.tasks.first_of_name`.

    Args:
        topk: The values of K; one larger than a task's number of classes counts every sample.
        collect_device: ``'cpu'`` or ``'gpu'``, for the exchange between processes.

    Raises:
        ValueError: No sample has ``pred_score``, or a task's metric does not suit its classes.
    """

    default_prefix = 'zero_shot'

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.topk = tuple(topk)

    def metric_names(self, dataset: Dataset) -> list[str]:
        """Names of what an evaluation of ``dataset`` will give, without the prefix."""
        self.dataset_meta = dataset.metainfo  # as the loop will set it
        names = []
        for task, part in query_parts(dataset).items():
            if 'classes' in part.metainfo:
                for name in sorted({*(f'top{k}' for k in self.topk), self._kind(task)}):
                    names += names_of(f'{task}_{name}')
        return [*names, 'mean'] if names and 'tasks' in dataset.metainfo else names

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the rank of the true class of each sample, its label and its margin."""
        # One entry a sample, also for those passed over: mmengine drops by their number what the
        # sampler added to make the shares of all processes equal.
        entries: list[tuple] = [()] * len(data_samples)
        by_task = defaultdict(list)
        for index, sample in enumerate(data_samples):
            if 'pred_score' in sample:
                by_task[sample['task']].append(index)
        for task, indices in by_task.items():
            scores = torch.stack([data_samples[index]['pred_score'] for index in indices])
            labels = torch.cat([data_samples[index]['gt_label'] for index in indices])
            margins = self._margin(task, scores)
            scores, labels = merge_names(scores, labels, self._task(task).get('classes', ()))
            columns = _rank(scores, labels), labels.tolist(), margins
            for index, *values in zip(indices, *columns, strict=True):
                entries[index] = (task, *values)
        self.results.extend(entries)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """All figures of all tasks."""
        by_task = defaultdict(list)
        for entry in filter(None, results):
            by_task[entry[0]].append(entry[1:])
        if not by_task:
            raise ValueError(
                'ZeroShotAccuracy found no sample with a score for each class. Add '
                "dict(type='mmslip.ZeroShotHook') to custom_hooks, and to the data at least one "
                'set that states `task` and `classes`.'
            )
        metrics, official = {}, []
        for task, entries in by_task.items():
            ranks, labels, margins = map(np.array, zip(*entries, strict=True))
            kind = self._kind(task)
            self._report_names(task)
            for name, figure in self._figures(kind, ranks, labels, margins):
                metrics.update(percent(f'{task}_{name}', figure))
            official.append(metrics[f'{task}_{kind}'])
        if 'tasks' in (self.dataset_meta or {}):
            metrics['mean'] = sum(official) / len(official)
        return metrics

    def _figures(
        self, kind: str, ranks: np.ndarray, labels: np.ndarray, margins: np.ndarray
    ) -> Iterator[tuple[str, Figure]]:
        """Names and figures of one task; ``ranks``, ``labels`` and ``margins`` are ``(N,)``."""
        for k in sorted({*self.topk, *([1] if kind == 'top1' else [])}):
            yield f'top{k}', proportion(ranks < k)
        if kind == 'mean_per_class':
            yield kind, mean_per_class(ranks < 1, labels)
        elif kind == 'top1_top5_mean':
            hits = (ranks < 1).astype(int) + (ranks < 5)
            yield kind, ratio_of_sums(hits, np.full_like(hits, 2))
        elif kind == 'roc_auc':
            yield kind, roc_auc(margins, labels)

    def _task(self, name: str) -> dict:
        """What the data says of a task."""
        meta = self.dataset_meta or {}
        # A data set that stands alone describes its own task.
        return meta.get('tasks', {meta.get('task'): meta}).get(name, {})

    def _kind(self, task: str) -> str:
        """The official metric of a task."""
        return self._task(task).get('metric', 'top1')

    def _report_names(self, task: str) -> None:
        classes = self._task(task).get('classes', ())
        firsts = first_of_name(classes)
        shared = sorted({first for number, first in enumerate(firsts) if first != number})
        if shared:
            names = [classes[n] if isinstance(classes[n], str) else classes[n][0] for n in shared]
            print_log(
                f'Task {task!r}: several classes have the name {", ".join(map(repr, names[:5]))}, '
                'which prompts cannot tell apart: they count as one class.',
                logger='current',
                level=WARNING,
            )

    def _margin(self, task: str, scores: Tensor) -> list[float]:
        """Score of class 1 minus that of class 0, from which a ROC curve is drawn."""
        if self._kind(task) != 'roc_auc':
            return [0.0] * len(scores)
        if scores.shape[1] != 2:
            raise ValueError(
                f"The metric of task {task!r} is 'roc_auc', for two classes, but it has "
                f'{scores.shape[1]}.'
            )
        return (scores[:, 1] - scores[:, 0]).tolist()


def merge_names(
    scores: Tensor, labels: Tensor, classes: Sequence[str | Sequence[str]]
) -> tuple[Tensor, Tensor]:
    """Scores ``(N, K)`` and labels ``(N,)`` in which the first of several classes of one name
    stands for all; the others have the score ``-inf``.
    """
    firsts = first_of_name(classes)
    others = [number for number, first in enumerate(firsts) if first != number]
    if not others:
        return scores, labels
    scores = scores.index_fill(1, torch.tensor(others, device=scores.device), -torch.inf)
    return scores, torch.tensor(firsts)[labels.cpu()].to(labels.device)


def _rank(scores: Tensor, labels: Tensor) -> list[int]:
    """How many classes stand before the true one, of ``(N, K)`` scores and ``(N,)`` labels."""
    truth = scores.gather(1, labels.to(scores.device)[:, None])  # (N, 1)
    # What is not clearly below the true class counts against it: equal scores earn nothing, nor do
    # the NaN of a model that has diverged.
    ranks = (~(scores < truth)).sum(1) - 1
    return ranks.masked_fill(~truth[:, 0].isfinite(), sys.maxsize).tolist()
