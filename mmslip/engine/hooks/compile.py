"""torch.compile, block by block."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmcv.cnn.bricks.drop import DropPath
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmslip.models.blocks import BLOCK_TYPES, find_blocks
from mmslip.registry import HOOKS

__all__ = ['CompileHook', 'compile_blocks']


def compile_blocks(
    model: nn.Module, block_types: Sequence[str] = BLOCK_TYPES, backend: str = 'inductor'
) -> None:
    """Compile the transformer blocks of a model in place, each by itself.

    The blocks of a tower are alike, so one is compiled and the rest reuse it, unless drop path
    gives each depth another probability. Names of modules and parameters stay, the state dict with
    them; deep copies (a moving average of the weights) are not compiled. Captions may have any
    length, since batches are cut to their longest; for images each size is compiled by itself.

    Args:
        model: Any model.
        block_types: Class names of the blocks; those of SLIP's two transformers by default.
        backend: Backend of :func:`torch.compile`.

    Raises:
        ValueError: The model has no such blocks.
    """
    # Of a class of blocks, not of each: training, evaluation, smaller views, drop path and a last,
    # shorter batch are compiled once each, and 8 would not do.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for name, block in find_blocks(model, block_types).items():
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


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the blocks of the model before a run; ``tools/train.py --compile`` adds this hook.

    mmengine's own ``compile=True`` compiles the whole training step, breaks it at every look at the
    data and compiles anew for many batches. Embeddings, heads and losses are a small part of a step
    and stay as they are.

    Args:
        block_types: See :func:`compile_blocks`.
        backend: Backend of :func:`torch.compile`. The default builds kernels of its own, by Triton
            on a GPU and by a C++ compiler on a CPU.
    """

    def __init__(self, block_types: Sequence[str] = BLOCK_TYPES, backend: str = 'inductor') -> None:
        self.block_types = block_types
        self.backend = backend

    def before_run(self, runner: Runner) -> None:
        """Mark the blocks; the first steps compile them."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        compile_blocks(model, self.block_types, self.backend)
