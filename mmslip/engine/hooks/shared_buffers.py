"""One model in all processes of a validation."""

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmslip.registry import HOOKS

__all__ = ['SharedBuffersHook']


@HOOKS.register_module()
class SharedBuffersHook(Hook):
    """Have all processes validate with the buffers of the first one, which checkpoints hold.

    Batch norm that is not synchronised (on CPUs, or with ``sync_bn=None``) has other running
    statistics in each process, and DDP leaves them so. Each process would judge its part of the
    validation data by its own, and the score would be that of no checkpoint. Training does not
    change: its batch norm does not read them.
    """

    # After EMAHook, which may swap in averaged buffers, and before ZeroShotHook.
    priority = 'BELOW_NORMAL'

    def before_val_epoch(self, runner: Runner) -> None:
        """Take the buffers of the first process."""
        for buffer in runner.model.buffers():
            broadcast(buffer)
