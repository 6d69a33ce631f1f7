"""Base of the metrics that fit a classifier on reference features: kNN and linear probe."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.utils.data import Dataset

from mmslip.datasets.tasks import role_of
from mmslip.evaluation.statistics import names_of, percent, proportion

__all__ = ['ReferenceMetric']


class ReferenceMetric(BaseMetric):
    """Top-1 accuracy of a classifier that learns from the ``reference`` samples of a task.

    Every task with samples of both roles is judged and reported as ``PREFIX/TASK_top1`` in percent,
    with its 95 % interval; tasks without references (zero-shot ones) are passed over, and so are
    samples without a label. A reference whose feature is not finite is left out; such a
    query counts as wrong. The classifier runs in the main process, on its GPU where it has one.

    Features are kept and exchanged in float32: half precision would save half of the memory (4 GB
    for 1.3 million features of 768 numbers), but standardising a dimension that varies little
    around a large mean would then magnify its rounding.

    Args:
        feature: Field of the samples that holds their feature, ``(C,)``: ``'backbone_feat'``, or
            ``'image_feat'`` for the embedding in the joint space.
        collect_device: ``'cpu'`` or ``'gpu'``, for the exchange between processes.

    Raises:
        KeyError: A labelled sample lacks the feature.
        ValueError: No task has references, or one has references and nothing to judge.
    """

    # Of the figures of a task that `classify` returns.
    further_names: tuple[str, ...] = ()

    def __init__(self, feature: str = 'backbone_feat', collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.feature = feature

    def metric_names(self, dataset: Dataset) -> list[str]:
        """Names of what an evaluation of ``dataset`` will give, without the prefix."""
        metas = [part.metainfo for part in getattr(dataset, 'datasets', [dataset])]
        roles = {(meta.get('task'), role_of(meta)) for meta in metas}
        names = []
        for task in sorted({task for task, role in roles if role == 'reference'}):
            if (task, 'query') in roles:
                names += names_of(f'{task}_top1')
                names += [f'{task}_{name}' for name in self.further_names]
        return names

    @abstractmethod
    def classify(
        self, features: Tensor, labels: Tensor, queries: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Learn from references and predict the labels of queries.

        Args:
            features: ``(N, C)`` float32, finite.
            labels: ``(N,)`` int64.
            queries: ``(M, C)`` float32, finite.

        Returns:
            Labels ``(M,)``, and further figures of the task by name.
        """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep task, role, label and feature of each labelled sample."""
        # One entry a sample, also for those passed over: mmengine drops by their number what the
        # sampler added to make the shares of all processes equal.
        entries: list[tuple] = [()] * len(data_samples)
        labelled = [index for index, sample in enumerate(data_samples) if 'gt_label' in sample]
        if labelled:
            rows = torch.stack([self._feature_of(data_samples[index]) for index in labelled])
            for index, row in zip(labelled, rows.float().cpu().numpy(), strict=True):
                sample = data_samples[index]
                role = role_of(sample)
                entries[index] = (sample['task'], role, int(sample['gt_label']), row)
        self.results.extend(entries)

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Top-1 accuracy of each task that has references."""
        tasks = defaultdict(lambda: defaultdict(list))
        for task, role, *entry in filter(None, results):
            tasks[task][role].append(entry)
        name = type(self).__name__
        judged = {task: roles for task, roles in tasks.items() if 'reference' in roles}
        if not judged:
            raise ValueError(
                f'{name} learns from samples whose role is "reference", and found none among the '
                f'tasks {sorted(tasks)}: evaluate a second data set with the same `task` and '
                "role='reference', such as the training images."
            )
        metrics = {}
        for task, roles in judged.items():
            if 'query' not in roles:
                raise ValueError(
                    f'Task {task!r} has references but nothing to judge: evaluate a second data '
                    f'set with task={task!r} and without `role`.'
                )
            hits, figures = self._judge(roles.pop('reference'), roles.pop('query'))
            metrics.update(percent(f'{task}_top1', proportion(hits)))
            metrics.update({f'{task}_{name}': value for name, value in figures.items()})
        return metrics

    def _judge(
        self, references: list[tuple], queries: list[tuple]
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Whether each query gets its true label, ``(M,)`` bool, and further figures."""
        labels, features = _finite(references)
        truth, asked = _finite(queries)
        predicted, figures = truth.new_empty(0), {}
        if len(features) and len(asked):
            predicted, figures = self.classify(features, labels, asked)
        hits = np.zeros(len(queries), bool)
        hits[: len(predicted)] = (predicted == truth[: len(predicted)]).cpu().numpy()
        return hits, figures

    def _feature_of(self, sample: dict) -> Tensor:
        if self.feature not in sample:
            raise KeyError(
                f'{type(self).__name__} needs the field {self.feature!r} of each sample, which has '
                f'{sorted(sample)}: `image_feat` is made only by models with a text tower, '
                '`backbone_feat` by every mmslip.SLIP.'
            )
        return sample[self.feature]


def _finite(entries: list[tuple[int, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Labels ``(N,)`` and features ``(N, C)`` of the entries whose features are finite."""
    entries = [entry for entry in entries if np.isfinite(entry[1]).all()]
    features = np.stack([row for _, row in entries]) if entries else np.empty((0, 0), np.float32)
    labels = np.array([label for label, _ in entries], np.int64)
    device = get_device()
    return torch.from_numpy(labels).to(device), torch.from_numpy(features).to(device)
