"""Low-rank adaptation of a tower (LoRA, Hu et al., arXiv 2106.09685), by ``peft``."""

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ['add_lora']


def add_lora(
    tower: nn.Module,
    r: int = 8,
    lora_alpha: float = 8,
    lora_dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
) -> None:
    """Put two small matrices beside linear layers of a tower, and let nothing else of it train.

    A layer becomes ``W x + lora_alpha / r * B (A x)``, with ``A`` ``(r, I)`` random and ``B``
    ``(O, r)`` zero at first.

    Args:
        tower: The tower, which is initialised and changed.
        r: Rank.
        lora_alpha: Scale, before it is divided by the rank.
        lora_dropout: Probability of dropout before ``A``.
        target_modules: Ends of the names of the layers, such as ``['qkv', 'proj']``; by default all
            linear layers.

    Raises:
        ImportError: ``peft`` is not installed.
        ValueError: No layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'mmslip[lora]'.") from error
    if hasattr(tower, 'init_weights'):
        # Now: initialisers would treat the small matrices like any other.
        tower.init_weights()
    linear = [name for name, part in tower.named_modules() if isinstance(part, nn.Linear)]
    settings = dict(r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout)
    targets = linear if target_modules is None else list(target_modules)
    inject_adapter_in_model(LoraConfig(target_modules=targets, **settings), tower)
    for layer in tower.modules():
        if hasattr(layer, 'lora_A'):
            # With the weights, so that they can be merged where their config is not at hand.
            layer.register_buffer('lora_scale', torch.tensor(float(layer.scaling['default'])))
