"""The symmetric image-text contrastive loss."""

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor

from mmslip.models.losses.gather import gather
from mmslip.models.losses.info_nce import info_nce
from mmslip.models.losses.precision import at_least_float32

__all__ = ['clip_loss']


def clip_loss(
    image_embed: Tensor, text_embed: Tensor, logit_scale: Tensor, gather_with_grad: bool = True
) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE over matching image-text pairs (Radford et al., arXiv 2103.00020).

    Every rank holds ``b`` of the ``B`` pairs. It compares its own images with all texts and its own
    texts with all images; the matches lie on a shifted diagonal (rank 1 of 2, ``b = 2``)::

            texts of rank 0 | 1
        image 0    .  .  |  x  .
        image 1    .  .  |  .  x

    so the logits are ``(b, B)``, never ``(B, B)``. A model that knows nothing has a loss of
    ``ln B``.

    Args:
        image_embed: ``(b, D)``, any scale; normalised here, in fp32 or better.
        text_embed: ``(b, D)``, row ``i`` matches image ``i``.
        logit_scale: The factor on cosine similarities (after ``exp``), one element.
        gather_with_grad: See :func:`mmslip.models.losses.gather`; ``False`` is the official code's
            behaviour on several GPUs.

    Returns:
        The loss (mean over this rank's pairs and both directions) and the percentage of this
        rank's images whose own text scores highest, both scalars.
    """
    with torch.autocast(image_embed.device.type, enabled=False):
        image = F.normalize(at_least_float32(image_embed), dim=-1)  # (b, D)
        text = F.normalize(at_least_float32(text_embed), dim=-1)  # (b, D)
        scale = at_least_float32(logit_scale)
        labels = torch.arange(len(image), device=image.device) + get_rank() * len(image)
        to_text, accuracy = info_nce(image, gather(text, gather_with_grad), labels, scale)
        to_image, _ = info_nce(text, gather(image, gather_with_grad), labels, scale)
    return (to_text + to_image) / 2, accuracy
