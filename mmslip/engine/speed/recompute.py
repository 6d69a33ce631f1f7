"""Memory for time: blocks that are computed again in the backward pass."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ['recompute_blocks']


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Keep only the inputs of blocks for the backward pass (Chen et al., arXiv 1604.06174).

    Gradients are the same, random numbers included, and so are the running statistics of batch
    norm, which only the first of the two forward passes updates. A step takes about a third longer,
    one more forward pass. mmengine's own ``activation_checkpointing`` names blocks one by one, and
    its recomputation is reentrant, which DDP refuses for a tower that runs more than once in a
    step.
    """
    for block in blocks:
        norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, context_fn=partial(_contexts, norms)
        )


def _contexts(norms: Sequence[_BatchNorm]) -> tuple[AbstractContextManager, ...]:
    """Contexts of the forward pass and of its repetition."""
    return nullcontext(), _without_statistics(norms)


@contextmanager
def _without_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within, batch norm updates copies of its running statistics, which are thrown away."""
    kept = [(norm, name, value) for norm in norms for name, value in norm.named_buffers()]
    for norm, name, value in kept:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)
