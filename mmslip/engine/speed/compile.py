"""torch.compile, block by block."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import nn

__all__ = ['compile_blocks']


def compile_blocks(blocks: Mapping[str, nn.Module], backend: str = 'inductor') -> None:
    """Compile blocks in place, each by itself.

    The blocks of a tower are alike, so one is compiled and the rest reuse it, unless drop path
    gives each depth another probability. Names of modules and parameters stay, the state dict with
    them; deep copies (a moving average of the weights) are not compiled. Captions may have any
    length, since batches are cut to their longest; for images each size is compiled by itself.

    mmengine's own ``compile=True`` compiles the whole training step, breaks it at every look at the
    data and compiles anew for many batches. Embeddings, heads and losses are a small part of a step
    and stay as they are.

    Args:
        blocks: By their names in the model, of which those under ``text_backbone`` have inputs of
            any length.
        backend: Backend of :func:`torch.compile`.
    """
    # Of a class of blocks, not of each: training, evaluation, smaller views, drop path and a last,
    # shorter batch are compiled once each, and 8 would not do.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for name, block in blocks.items():
        for module in block.modules():
            if isinstance(module, DropPath):
                # mmpretrain takes it from np.linspace, and a NumPy scalar breaks the graph.
                module.drop_prob = float(module.drop_prob)
        # Said, not left to PyTorch, which turns a size variable when it changes: a block that is
        # run again for its gradient would then meet another graph than in its forward pass.
        dynamic = name.startswith('text_backbone.')
        block.forward = _CompiledForward(block.forward, backend=backend, dynamic=dynamic)


class _CompiledForward:
    """Replaces a bound ``forward``.

    ``block.compile()`` would not do: it compiles what surrounds ``forward``, and nothing where that
    is recomputation of the block.
    """

    def __init__(self, forward: Callable, **options: Any) -> None:
        self.forward = forward
        self.compiled = torch.compile(forward, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.compiled(*args, **kwargs)

    def __deepcopy__(self, memo: dict) -> Callable:
        """The plain ``forward``, of the copied block: what is compiled belongs to the original."""
        return copy.deepcopy(self.forward, memo)
