"""Two sets of embeddings whose rows belong together."""

import torch.nn.functional as F
from torch import Tensor

from mmslip.models.losses.precision import at_least_float32

__all__ = ['unit_pairs']


def unit_pairs(first: Tensor, second: Tensor, names: str) -> tuple[Tensor, Tensor]:
    """Both at unit length, in fp32 or better.

    Args:
        first: ``(b, D)``.
        second: ``(b, D)``, row ``i`` belongs to row ``i`` of the first; or ``(b, m, D)``, ``m``
            that belong to it.
        names: Of both, for messages: ``'images and texts'``.

    Raises:
        ValueError: They differ in number or width, or there are none.
    """
    if first.shape != (len(second), second.shape[-1]) or not second.numel():
        raise ValueError(
            f'{names}: embeddings of shapes {tuple(first.shape)} and {tuple(second.shape)} are no '
            'pairs; a loss takes one or more rows (b, D), as many and as wide on both sides.'
        )
    first, second = (F.normalize(at_least_float32(part), dim=-1) for part in (first, second))
    return first, second
