"""A warm-up that states where it starts."""

from typing import Any

from mmengine.optim import LinearLR, OptimWrapper

from mmslip.registry import PARAM_SCHEDULERS

__all__ = ['WarmupLR']


@PARAM_SCHEDULERS.register_module()
class WarmupLR(LinearLR):
    """Raise the learning rate from ``start`` to the optimiser's own in even steps.

    mmengine's ``LinearLR`` takes the ratio of the two, which has to be worked out anew whenever the
    optimiser's learning rate changes.

    Args:
        optimizer: The optimiser, or its wrapper.
        *args: Arguments of ``LinearLR``.
        start: Learning rate of the first step. Where groups differ, as with layer decay, that of
            the fastest; the others start at the same fraction of their own.
        **kwargs: Arguments of ``LinearLR``.

    Raises:
        ValueError: ``start`` is above the learning rate of the optimiser.
    """

    def __init__(self, optimizer: OptimWrapper, *args: Any, start: float, **kwargs: Any) -> None:
        # Not those of the wrapper, which adds one that --auto-scale-lr leaves as it is.
        groups = getattr(optimizer, 'optimizer', optimizer).param_groups
        highest = max(group.get('initial_lr', group['lr']) for group in groups)
        if start > highest:
            raise ValueError(
                f'WarmupLR starts at {start:g}, above optim_wrapper.optimizer.lr, {highest:g}: '
                'lower `start` of param_scheduler.'
            )
        super().__init__(optimizer, *args, start_factor=start / highest, **kwargs)
