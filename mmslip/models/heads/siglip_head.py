"""Head of the image-text half with the sigmoid loss."""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.models.losses import siglip_loss
from mmslip.registry import MODELS

__all__ = ['SigLIPHead']


@MODELS.register_module()
class SigLIPHead(BaseModule):
    """Pairwise sigmoid loss with a learned temperature and bias (Zhai et al., arXiv 2303.15343).

    ``logit_scale`` holds the logarithm of the factor on cosine similarities, ``logit_bias`` what is
    added to them; the start of the bias answers for the ``B - 1`` strangers of each match. Neither
    is bounded, as in the paper. Both have shape ``(1,)``, which sharded training asks for.

    Args:
        init_scale: Start of the factor.
        init_bias: Start of the bias.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self, init_scale: float = 10.0, init_bias: float = -10.0, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(init_scale)))
        self.logit_bias = nn.Parameter(torch.full((1,), init_bias))

    def loss(self, image_embed: Tensor, text_embed: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            image_embed: ``(B, D)``.
            text_embed: ``(B, D)``, row ``i`` matches image ``i``.

        Returns:
            Scalars ``loss``, ``acc`` (percent) and ``logit_scale`` (the factor, detached).
        """
        scale = self.logit_scale.exp()
        loss, acc = siglip_loss(image_embed, text_embed, scale, self.logit_bias)
        return dict(loss=loss, acc=acc, logit_scale=scale.detach().mean())
