"""Gather of embeddings over all processes, the only distributed operation of the losses."""

from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size, is_distributed
from torch import Tensor
from torch import distributed as dist

__all__ = ['gather']


class _AllGather(torch.autograd.Function):
    """Concatenate over ranks; the backward pass sums over ranks what each rank's loss sent back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.new_empty(get_world_size() * len(x), *x.shape[1:])
        # Newer PyTorch warns of the old name in every step.
        gather_into = getattr(dist, 'all_gather_single', None) or dist.all_gather_into_tensor
        gather_into(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # reduce_scatter would move less, but gloo does not offer it for every PyTorch we support;
        # embeddings are small beside the gradients of the model.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(get_world_size())[get_rank()]


def gather(x: Tensor, with_grad: bool = True) -> Tensor:
    """Concatenate ``x`` of all ranks in rank order, ``(b, D)`` -> ``(world_size * b, D)``.

    DDP averages parameter gradients over ranks. When every rank's loss is the mean over its own
    rows, that average is the gradient of the global mean, provided the gathered columns carry their
    gradient back to the rank that owns them, *summed* over the losses that used them. That is what
    ``with_grad=True`` does.

    Args:
        x: This rank's rows. Every rank must have the same number of them.
        with_grad: Whether gradients flow through the gathered rows. ``False`` repeats the official
            SLIP code on several GPUs, where columns are constants; a single process keeps the
            gradient either way, as it does there.

    Returns:
        All rows; ``x`` itself in a single process.
    """
    if not is_distributed() or get_world_size() == 1:
        return x
    return _AllGather.apply(x) if with_grad else _AllGather.apply(x.detach())
