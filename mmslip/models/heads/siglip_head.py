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

    ``logit_scale`` holds the logarithm of the factor on cosine similarities; ``logit_bias`` is
    added to them. A batch has ``B - 1`` negatives for each positive pair: the bias starts low, so
    that the first logits say "no match" and the loss is not dominated by the negatives. Neither is
    bounded, as in the paper. Both have shape ``(1,)``, since sharded training refuses 0-d
    parameters.

    Args:
        init_scale: Start of the factor.
        init_bias: Start of the bias.
        match_duplicates: Whether rows of an equal image, or of an equal caption, are positives of
            each other, instead of negatives. `mmslip doctor` says where many are equal.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: The factor is not positive and finite, or the bias is not finite.
    """

    def __init__(
        self,
        init_scale: float = 10.0,
        init_bias: float = -10.0,
        match_duplicates: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not (0 < init_scale < math.inf and math.isfinite(init_bias)):
            raise ValueError(
                f'init_scale must be positive and finite, and init_bias finite, not {init_scale} '
                f'and {init_bias}.'
            )
        self.match_duplicates = match_duplicates
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(init_scale)))
        self.logit_bias = nn.Parameter(torch.full((1,), init_bias))

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
        loss, acc = siglip_loss(image_embed, text_embed, scale, self.logit_bias, keys)
        return dict(loss=loss, acc=acc, logit_scale=scale.detach().mean())
