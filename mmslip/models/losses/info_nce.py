"""The cross entropy under all contrastive losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmslip.models.losses.blocks import sum_over_blocks
from mmslip.models.losses.matches import is_match

__all__ = ['info_nce']


def info_nce(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
    scale: Tensor | float,
    excluded: Tensor | None = None,
    column_keys: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of finding each row's match among all columns.

    Where a row has several matches, its loss is the mean of theirs (``L_out`` of Khosla et al.,
    arXiv 2004.11362)::

        loss_i = -1/|P(i)| sum_{p in P(i)} log softmax_p (scale cos_i.)

    Logits beyond ``2 ** 24`` elements are never held whole
    (:func:`mmslip.models.losses.blocks.sum_over_blocks`).

    Args:
        rows: ``(b, D)``, unit norm.
        columns: ``(N, D)``, unit norm.
        labels: The column that matches each row, ``(b,)``; or, with ``column_keys``, the keys of
            the rows ``(b, 1 + p)``, each of which matches a column at least.
        scale: Factor on the similarities, a number or one element.
        excluded: A column for each row that it is not compared with, ``(b,)``; not with keys.
        column_keys: Keys ``(N, 1 + q)`` of the columns, where
            :func:`mmslip.models.losses.matches.is_match` says what matches.

    Returns:
        The loss, a mean over rows, and the percentage of rows for which a match scores highest,
        scalars.
    """
    loss, correct = sum_over_blocks(_block, (scale * rows, labels, excluded), columns, column_keys)
    return loss / len(rows), 100 * correct / len(rows)


def _block(
    rows: Tensor,
    labels: Tensor,
    excluded: Tensor | None,
    columns: Tensor,
    column_keys: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Summed loss and number of hits of some rows."""
    logits = rows @ columns.T  # (r, D) x (D, N) -> (r, N)
    if excluded is not None:
        logits.scatter_(1, excluded[:, None], -torch.inf)
    best = logits.detach().argmax(dim=-1)
    if column_keys is None:
        return F.cross_entropy(logits, labels, reduction='sum'), (best == labels).sum()
    matches = is_match(labels, column_keys)  # (r, N)
    shares = matches / matches.sum(dim=1, keepdim=True).to(logits.dtype)  # of the target
    hits = matches.gather(1, best[:, None]).sum()
    return F.cross_entropy(logits, shares, reduction='sum'), hits
