"""The model inside of mmengine's wrappers."""

from mmengine.model import is_model_wrapper
from torch import nn

__all__ = ['unwrap']


def unwrap(model: nn.Module) -> nn.Module:
    """The model that a wrapper, such as DDP or ``mmslip.FullyShard``, was given; or itself."""
    return model.module if is_model_wrapper(model) else model
