"""Accuracy of zero-shot classification, for each task of an evaluation."""

import sys
from collections import defaultdict
from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from mmslip.registry import METRICS

__all__ = ['ZeroShotAccuracy']


@METRICS.register_module()
class ZeroShotAccuracy(BaseMetric):
    """Top-k accuracy in percent, reported as ``zero_shot/TASK_topK``.

    mmpretrain's ``Accuracy`` mixes all samples of an evaluation; here each ``task`` (a data set of
    a ``ConcatDataset``) has its own classes and its own figures.

    Args:
        topk: The values of K; one larger than a task's number of classes counts every sample.
        collect_device: ``'cpu'`` or ``'gpu'``, for the exchange between processes.
    """

    default_prefix = 'zero_shot'

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the rank of the true class of each sample."""
        for sample in data_samples:
            score = sample['pred_score']  # (classes,)
            truth = score[sample['gt_label']]  # (1,)
            # What is not clearly below the true class counts against it: equal scores earn nothing,
            # nor do the NaN of a model that has diverged.
            rank = int((~(score < truth)).sum()) - 1
            if not truth.isfinite().all():
                rank = sys.maxsize
            self.results.append((sample['task'], rank))

    def compute_metrics(self, results: list[tuple[str, int]]) -> dict[str, float]:
        """Percentage of samples of each task with the true class among the first K."""
        ranks = defaultdict(list)
        for task, rank in results:
            ranks[task].append(rank)
        return {
            f'{task}_top{k}': 100 * sum(rank < k for rank in of_task) / len(of_task)
            for task, of_task in ranks.items()
            for k in self.topk
        }
