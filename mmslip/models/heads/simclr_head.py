"""Head of the SimCLR half."""

import math

from mmengine.model import BaseModule
from torch import Tensor

from mmslip.models.losses import simclr_loss
from mmslip.registry import MODELS

__all__ = ['SimCLRHead']


@MODELS.register_module()
class SimCLRHead(BaseModule):
    """Contrastive head over two views with exact distributed gradients.

    Args:
        temperature: Divides the cosine similarities; 0.1 in SLIP.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: The temperature is not positive and finite.
    """

    def __init__(self, temperature: float = 0.1, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not 0 < temperature < math.inf:
            raise ValueError(f'temperature must be positive and finite, not {temperature}.')
        self.temperature = temperature

    def loss(self, view1: Tensor, view2: Tensor) -> dict[str, Tensor]:
        """Scalars ``loss`` and ``acc`` (percent) of embeddings ``(B, D)`` of two views."""
        loss, acc = simclr_loss(view1, view2, self.temperature)
        return dict(loss=loss, acc=acc)
