"""The cross entropy under all contrastive losses, in bounded memory."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ['info_nce']

# Elements of the logits that are held at once, 64 MiB in fp32: a batch of 4,096 on one GPU still
# goes in one piece.
_MAX_LOGITS = 2**24


def info_nce(
    rows: Tensor,
    columns: Tensor,
    labels: Tensor,
    scale: Tensor | float,
    excluded: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of finding each row's match among all columns.

    Logits beyond ``2 ** 24`` elements are never held whole: blocks of rows are compared one after
    another, and again in the backward pass. Values do not depend on it but for the order of a sum.

    Args:
        rows: ``(b, D)``, unit norm.
        columns: ``(N, D)``, unit norm.
        labels: The column that matches each row, ``(b,)``.
        scale: Factor on the similarities, a number or one element.
        excluded: A column for each row that it is not compared with, ``(b,)``.

    Returns:
        The loss, a mean over rows, and the percentage of rows whose match scores highest, scalars.
    """
    size = max(1, _MAX_LOGITS // len(columns))
    rows = scale * rows
    if len(rows) <= size:
        loss, correct = _block(rows, columns, labels, excluded)
    else:
        no_exclusion = [None] * -(-len(rows) // size)
        blocks = zip(
            rows.split(size),
            labels.split(size),
            no_exclusion if excluded is None else excluded.split(size),
            strict=True,
        )
        results = [
            checkpoint(
                *(_block, block, columns, label, exclude),
                use_reentrant=False,
                preserve_rng_state=False,  # nothing is drawn
            )
            for block, label, exclude in blocks
        ]
        loss, correct = (torch.stack(values).sum() for values in zip(*results, strict=True))
    return loss / len(rows), 100 * correct / len(rows)


def _block(
    rows: Tensor, columns: Tensor, labels: Tensor, excluded: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Summed loss and number of hits of some rows."""
    logits = rows @ columns.T  # (r, D) x (D, N) -> (r, N)
    if excluded is not None:
        logits.scatter_(1, excluded[:, None], -torch.inf)
    loss = F.cross_entropy(logits, labels, reduction='sum')
    return loss, (logits.detach().argmax(dim=-1) == labels).sum()
