"""Where a training step is made smaller and faster, and in which order."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.engine.speed.compile import compile_blocks
from mmslip.engine.speed.recompute import recompute_blocks
from mmslip.engine.speed.sharding import (
    FullyShard,
    distribute_checkpoint,
    is_sharded,
    shard_run,
)
from mmslip.engine.unwrap import unwrap
from mmslip.models.blocks import find_blocks
from mmslip.registry import HOOKS

__all__ = ['SpeedHook']


@HOOKS.register_module()
class SpeedHook(Hook):
    """Recompute, compile and shard the blocks of all towers when training begins.

    The default runtime has it as ``default_hooks.speed``. All of this leaves losses, gradients and
    checkpoints as they are. The order, from a tower inwards and then outwards, is stated in
    :meth:`before_train`, and there alone.

    Args:
        recompute: Keep only the inputs of blocks for the backward pass
            (:func:`mmslip.engine.speed.recompute.recompute_blocks`).
        compile: Compile the blocks (:func:`mmslip.engine.speed.compile.compile_blocks`);
            ``mmslip train --compile`` sets it.
        block_types: Class names of blocks, such as ``['Bottleneck']``, where those that are found
            (:func:`mmslip.models.blocks.find_blocks`) are not those wanted.
        backend: Backend of :func:`torch.compile`. The default builds kernels of its own, by Triton
            on a GPU and by a C++ compiler on a CPU.

    Raises:
        ValueError: No blocks are found in a tower; the message names it.
    """

    # What is loaded into a sharded model has to be distributed before EMAHook takes its part.
    priority = 'VERY_HIGH'

    def __init__(
        self,
        recompute: bool = False,
        compile: bool = False,
        block_types: Sequence[str] = (),
        backend: str = 'inductor',
    ) -> None:
        self.recompute, self.compile = recompute, compile
        self.block_types, self.backend = block_types, backend

    def before_train(self, runner: Runner) -> None:
        """Apply what is asked for, in the one order in which the parts fit into each other."""
        model = unwrap(runner.model)
        # 1. Chunk: `SLIP(chunk_size=...)` has made its towers run over slices when it was built.
        if self.recompute or self.compile:
            blocks = find_blocks(model, self.block_types)
            # 2. Recompute: a block's forward pass, within a slice, runs again for its gradient.
            # 3. Compile: what runs, both times, is compiled; so this is applied first.
            if self.compile:
                compile_blocks(blocks, self.backend)
            if self.recompute:
                recompute_blocks(blocks.values())
        # 4. Shard: parameters are gathered around each block, and stay for both of its passes.
        if isinstance(runner.model, FullyShard) and not is_sharded(model):
            shard_run(runner, self.block_types)
        # 5. DDP, instead of 4: mmengine has wrapped the whole model when it built the runner.

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Shard again what an evaluation has gathered, before EMAHook swaps parameters."""
        if isinstance(runner.model, FullyShard):
            runner.model.release()

    after_test_epoch = after_val_epoch

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Distribute what is loaded into a model that is sharded already."""
        if isinstance(runner.model, FullyShard) and is_sharded(runner.model.module):
            distribute_checkpoint(runner, checkpoint)
