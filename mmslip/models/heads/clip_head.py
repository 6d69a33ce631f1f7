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

    The parameter ``logit_scale`` holds the logarithm of the factor on cosine similarities.
    :class:`mmslip.engine.ClampHook`, a hook of the default runtime, keeps it within
    ``[0, ln max_scale]`` after every optimiser step. It has shape ``(1,)`` because sharded training
    refuses 0-d parameters.

    Args:
        init_temperature: ``1 / scale`` at the start; ``1 / max_scale`` or more.
        max_scale: Upper bound of the scale.
        gather_with_grad: Exact gradients on several processes. ``False`` repeats the official
            multi-GPU run, whose image-text gradient is about half of the exact one.
        match_duplicates: Whether rows of an equal image, or of an equal caption, are positives of
            each other, instead of negatives. `mmslip doctor` says where many are equal.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: The scale does not start within ``[1, max_scale]``, or is no number.
    """

    def __init__(
        self,
        init_temperature: float = 0.07,
        max_scale: float = 100.0,
        gather_with_grad: bool = True,
        match_duplicates: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 1 / max_scale <= init_temperature <= 1:
            raise ValueError(
                f'init_temperature={init_temperature} is not within [1 / max_scale, 1] = '
                f'[{1 / max_scale:g}, 1].'
            )
        self.max_log_scale = math.log(max_scale)
        self.gather_with_grad = gather_with_grad
        self.match_duplicates = match_duplicates
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / init_temperature)))

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        """Bring ``logit_scale`` back into its bounds."""
        self.logit_scale.clamp_(0, self.max_log_scale)

    def loss(
        self, image_embed: Tensor, text_embed: Tensor, keys: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            image_embed: ``(B, D)``.
            text_embed: ``(B, D)``, row ``i`` matches image ``i``; or ``(B, m, D)``, ``m`` captions
                of each.
            keys: ``(B, 1 + m)``, of each image and its captions, with ``match_duplicates``.

        Returns:
            Scalars ``loss``, ``acc`` (percent) and ``logit_scale`` (the factor, detached).
        """
        scale = self.logit_scale.exp()
        loss, acc = clip_loss(image_embed, text_embed, scale, self.gather_with_grad, keys)
        return dict(loss=loss, acc=acc, logit_scale=scale.detach().mean())
