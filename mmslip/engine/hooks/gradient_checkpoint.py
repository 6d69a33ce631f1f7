"""Memory for time: blocks that are computed again in the backward pass."""

from collections.abc import Sequence
from functools import partial

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.checkpoint import checkpoint

from mmslip.models.blocks import BLOCK_TYPES, find_blocks
from mmslip.registry import HOOKS

__all__ = ['GradientCheckpointHook']


@HOOKS.register_module()
class GradientCheckpointHook(Hook):
    """Keep only the inputs of the blocks for the backward pass (Chen et al., arXiv 1604.06174).

    Gradients are the same, random numbers included; a step takes about a third longer, one more
    forward pass. mmengine's own ``activation_checkpointing`` names blocks one by one, and its
    recomputation is reentrant, which DDP refuses for a tower that runs more than once in a step.

    Args:
        block_types: Class names of the blocks; those of SLIP's two transformers by default.

    Raises:
        ValueError: The model has no such blocks.
    """

    def __init__(self, block_types: Sequence[str] = BLOCK_TYPES) -> None:
        self.block_types = block_types

    def before_train(self, runner: Runner) -> None:
        """Wrap each block's forward pass."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for block in find_blocks(model, self.block_types).values():
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
