"""A part of the outputs of a linear layer."""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ['partial_linear']


def partial_linear(layer: nn.Module, x: Tensor, outputs: slice) -> Tensor:
    """The outputs ``outputs`` of a linear layer, ``(..., I)`` to ``(..., O)``, at their cost alone.

    Of a layer that is more than its matrix, such as one with LoRA beside it, all are computed.
    """
    if type(layer) is not nn.Linear:
        return layer(x)[..., outputs]
    return F.linear(x, layer.weight[outputs], None if layer.bias is None else layer.bias[outputs])
