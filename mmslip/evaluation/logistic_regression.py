"""Multinomial logistic regression on features that are given."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['fit_logistic_regression']

# Logits held at a time: 64 MB of them.
_LOGITS = 2**24


@torch.enable_grad()
def fit_logistic_regression(
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    l2: float,
    start: Tensor | None = None,
    max_iter: int = 1000,
) -> Tensor:
    """Minimise ``mean cross-entropy + l2 / 2 * |weight|^2`` by full-batch L-BFGS.

    The problem is convex and the bias is not penalised: this is scikit-learn's
    ``LogisticRegression(C=1 / (l2 * N))``. It ends where no entry of the gradient exceeds 1e-6 or
    the objective no longer changes in the precision of the features.

    Args:
        features: ``(N, C)``.
        targets: Classes, ``(N,)`` int64.
        num_classes: Number of classes, ``K``.
        l2: Strength of the penalty.
        start: A solution of a similar problem, ``(K, C + 1)``; zeros by default.
        max_iter: Most iterations.

    Returns:
        Weights and, in the last column, biases, ``(K, C + 1)``.
    """
    number, width = features.shape
    solution = features.new_zeros(num_classes, width + 1) if start is None else start.clone()
    solution.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [solution],
        max_iter=max_iter,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=10,
        line_search_fn='strong_wolfe',
    )
    rows = max(1, _LOGITS // num_classes)

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = l2 / 2 * solution[:, :-1].square().sum()
        total.backward()
        # Chunk by chunk, so that the logits of all samples are never held at once.
        for part, target in zip(features.split(rows), targets.split(rows), strict=True):
            logits = F.linear(part, solution[:, :-1], solution[:, -1])  # (n, K)
            loss = F.cross_entropy(logits, target, reduction='sum') / number
            loss.backward()
            total = total.detach() + loss.detach()
        return total

    optimizer.step(closure)
    return solution.detach()
