"""A loss over all pairs of rows and columns, in bounded memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ['sum_over_blocks']

# Elements of the logits that are held at once, 64 MiB in fp32: a batch of 4,096 on one GPU still
# goes in one piece.
_MAX_LOGITS = 2**24


def sum_over_blocks(
    block: Callable[..., tuple[Tensor, ...]],
    rows: Sequence[Tensor | None],
    columns: Tensor,
    *others: Any,
) -> tuple[Tensor, ...]:
    """Sums of what ``block`` returns, which never sees more than ``2 ** 24`` logits.

    Blocks of rows follow one another, and are computed again in the backward pass. Values do not
    depend on it but for the order of a sum.

    Args:
        block: Takes a block of each of ``rows``, ``columns`` and ``others``; returns scalars.
        rows: What belongs to the rows, ``(b, ...)`` each, or None.
        columns: ``(N, ...)``, whole.
        others: Whole as well.
    """
    number, size = len(rows[0]), max(1, _MAX_LOGITS // len(columns))
    if number <= size:
        return block(*rows, columns, *others)
    none = [None] * -(-number // size)
    parts = [none if part is None else part.split(size) for part in rows]
    results = [
        checkpoint(
            *(block, *part, columns, *others),
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is drawn
        )
        for part in zip(*parts, strict=True)
    ]
    return tuple(torch.stack(values).sum() for values in zip(*results, strict=True))
