"""bfloat16 training on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from mmslip.registry import OPTIM_WRAPPERS

__all__ = ['BF16OptimWrapper']


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast, on a GPU or a CPU.

    bfloat16 has the range of float32, so no gradient scaler is needed. mmengine's
    ``AmpOptimWrapper`` requires a GPU and always builds one; it remains the choice for float16.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """mmengine's context (it skips gradient synchronisation while accumulating) in bfloat16."""
        device = get_device().split(':')[0]
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
