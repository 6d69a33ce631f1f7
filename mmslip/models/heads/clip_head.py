"""Head of the image-text half: the learned temperature and its loss."""

import math

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.models.losses import clip_loss
from mmslip.registry import MODELS

__all__ = ['CLIPHead']


@MODELS.register_module()
class CLIPHead(BaseModule):
    """Contrastive head with a learned temperature (Radford et al., arXiv 2103.00020).

    The parameter ``logit_scale`` holds the logarithm of the factor on cosine similarities. It is
    kept within ``[0, ln max_scale]`` by a clamp at the start of each training step, which is the
    end of the optimiser step before it: the trajectory is that of a clamp after every step, and no
    loop, hook or optimiser has to know of it. It has shape ``(1,)`` because sharded training
    refuses 0-d parameters.

    Args:
        init_temperature: Start of ``1 / scale``.
        max_scale: Upper bound of the scale.
        gather_with_grad: Exact gradients on several processes. ``False`` repeats the official
            multi-GPU run, whose image-text gradient is about half of the exact one.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        init_temperature: float = 0.07,
        max_scale: float = 100.0,
        gather_with_grad: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.max_log_scale = math.log(max_scale)
        self.gather_with_grad = gather_with_grad
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / init_temperature)))

    def clamp_parameters(self) -> None:
        """Bring ``logit_scale`` back into its bounds; sharded training does so on the shards."""
        with torch.no_grad():
            self.logit_scale.clamp_(0, self.max_log_scale)

    def scale(self) -> Tensor:
        """The factor on cosine similarities ``(1,)``, within ``[1, max_scale]``."""
        if self.training:
            self.clamp_parameters()
        return self.logit_scale.exp()

    def loss(self, image_embed: Tensor, text_embed: Tensor) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            image_embed: ``(B, D)``.
            text_embed: ``(B, D)``, row ``i`` matches image ``i``.

        Returns:
            Scalars ``loss``, ``acc`` (percent) and ``logit_scale`` (the factor, detached).
        """
        scale = self.scale()
        loss, acc = clip_loss(image_embed, text_embed, scale, self.gather_with_grad)
        return dict(loss=loss, acc=acc, logit_scale=scale.detach().mean())
