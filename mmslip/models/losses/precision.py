"""Number format of the losses."""

import torch
from torch import Tensor

__all__ = ['at_least_float32']


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is if it is more exact: losses are no place for 8 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
