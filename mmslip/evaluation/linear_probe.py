"""Linear classification of frozen features."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmslip.evaluation.logistic_regression import fit_logistic_regression
from mmslip.evaluation.reference_metric import ReferenceMetric
from mmslip.registry import METRICS

__all__ = ['LinearProbe']

# Every fifth reference chooses the strength of the penalty.
_HELD_OUT = 5


@METRICS.register_module()
class LinearProbe(ReferenceMetric):
    """Accuracy of multinomial logistic regression, ``linear/TASK_top1``.

    The exact optimum on features of unaugmented images, by L-BFGS as in CLIP's evaluation (Radford
    et al., arXiv 2103.00020, appendix A.3), instead of the published 90 epochs of SGD. Features are
    standardised with the mean and deviation of the references (a batch norm without scale, as
    MAE's linear classifier has: He et al., arXiv 2111.06377, appendix A). The penalty with the best
    accuracy on a held-out fifth of the references, equally spread over the classes, is used to
    learn from all of them; it is reported as ``linear/TASK_l2``. Roles, units and errors are those
    of :class:`mmslip.evaluation.ReferenceMetric`.

    Args:
        l2: Strengths to try, of the penalty ``l2 / 2 * |weight|^2`` beside the mean cross-entropy.
            From strong to weak, each starts at the solution of the one before; after two in a row
            that are worse than the best, the weaker ones, which take longest, are not tried.
        seed: Seed of the choice of the held-out fifth.
        feature: Field that holds the feature.
        collect_device: ``'cpu'`` or ``'gpu'``, for the exchange between processes.
    """

    default_prefix = 'linear'
    further_names = ('l2',)

    def __init__(
        self,
        l2: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
        seed: int = 0,
        feature: str = 'backbone_feat',
        collect_device: str = 'cpu',
    ) -> None:
        super().__init__(feature, collect_device)
        self.l2 = sorted(l2, reverse=True)
        self.seed = seed

    def classify(
        self, features: Tensor, labels: Tensor, queries: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Predicted labels ``(M,)`` and the chosen strength ``l2``."""
        std, mean = torch.std_mean(features, dim=0, correction=0)
        # A dimension that varies by rounding alone says nothing.
        std = std.masked_fill(std <= 1e-6 * mean.abs(), 1.0)
        features, queries = (torch.sub(rows, mean).div_(std) for rows in (features, queries))
        # Classes without a reference cannot be learned, and would send their bias to -infinity.
        classes, targets = labels.unique(return_inverse=True)
        l2, start = self._sweep(features, targets, len(classes))
        solution = fit_logistic_regression(features, targets, len(classes), l2, start)
        return classes[_predict(solution, queries)], dict(l2=l2)

    def _sweep(
        self, features: Tensor, targets: Tensor, num_classes: int
    ) -> tuple[float, Tensor | None]:
        """The best strength on held-out references, and its solution."""
        if len(self.l2) == 1:
            return self.l2[0], None
        held_out = _every_fifth(targets, self.seed)
        learned, known = features[~held_out], targets[~held_out]
        judged, truth = features[held_out], targets[held_out]
        best, worse, solution = (-1, self.l2[0], None), 0, None
        for l2 in self.l2:
            solution = fit_logistic_regression(learned, known, num_classes, l2, solution)
            hits = int((_predict(solution, judged) == truth).sum())
            worse = worse + 1 if hits < best[0] else 0
            if hits > best[0]:
                best = hits, l2, solution
            if worse == 2:
                break
        return best[1:]


def _predict(solution: Tensor, features: Tensor) -> Tensor:
    """Classes ``(N,)`` of ``(N, C)``."""
    return F.linear(features, solution[:, :-1], solution[:, -1]).argmax(dim=1)


def _every_fifth(targets: Tensor, seed: int) -> Tensor:
    """A random fifth ``(N,)`` bool, with a fifth of each class up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator).to(targets.device)
    order = order[targets[order].argsort(stable=True)]  # by class; at random within one
    chosen = torch.zeros_like(targets, dtype=torch.bool)
    chosen[order[_HELD_OUT - 1 :: _HELD_OUT]] = True
    return chosen
