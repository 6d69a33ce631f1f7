"""The symmetric image-text contrastive loss."""

import torch
from torch import Tensor

from mmslip.models.losses.gather import gather
from mmslip.models.losses.info_nce import info_nce
from mmslip.models.losses.matches import match
from mmslip.models.losses.pairs import unit_pairs
from mmslip.models.losses.precision import at_least_float32

__all__ = ['clip_loss']


def clip_loss(
    image_embed: Tensor,
    text_embed: Tensor,
    logit_scale: Tensor,
    gather_with_grad: bool = True,
    keys: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE over matching image-text pairs (Radford et al., arXiv 2103.00020).

    Every rank holds ``b`` of the ``B`` pairs. It compares its own images with all texts and its own
    texts with all images; the matches lie on a shifted diagonal (rank 1 of 2, ``b = 2``)::

            texts of rank 0 | 1
        image 0    .  .  |  x  .
        image 1    .  .  |  .  x

    so the logits are ``(b, B)``, never ``(B, B)``. A model that knows nothing has a loss of
    ``ln B``.

    With ``m`` texts of each image, or keys, an image has several matches, and a text has::

        image i:  -1/|P(i)| sum_{t in P(i)} log softmax_t (scale cos_i.)    over all B m texts
        text t:   -1/|Q(t)| sum_{i in Q(t)} log softmax_i (scale cos_.t)    over all B images

    (``L_out`` of Khosla et al., arXiv 2004.11362); the loss is half of the mean over images plus
    half of the mean over texts. ``P(i)`` are the texts of image ``i``, and with keys also those of
    equal images and those that equal one of its own; ``i`` is in ``Q(t)`` where ``t`` is in
    ``P(i)``. One text and no key twice is the loss above. Knowing nothing costs
    ``(ln B + ln(B m)) / 2``; images of one text cannot be told apart by it, so that a loss with
    equal keys does not reach zero.

    Args:
        image_embed: ``(b, D)``, any scale; normalised here, in fp32 or better.
        text_embed: ``(b, D)``, row ``i`` matches image ``i``; or ``(b, m, D)``, with ``m`` texts of
            each, as many on every rank.
        logit_scale: The factor on cosine similarities (after ``exp``), one element.
        gather_with_grad: See :func:`mmslip.models.losses.gather`; ``False`` is the official code's
            behaviour on several GPUs.
        keys: Integers ``(b, 1 + m)``, of each image and its texts. Those of an equal image, or an
            equal text, match instead of being each other's negatives.

    Returns:
        The loss (mean over this rank's pairs and both directions) and the percentage of this
        rank's images for which a text of their own scores highest, both scalars.
    """
    with torch.autocast(image_embed.device.type, enabled=False):
        image, text = unit_pairs(image_embed, text_embed, 'images and texts')
        images, texts, all_images, all_texts = match(text, keys)
        text = text.flatten(0, -2)  # (b, D) or (b * m, D)
        scale = at_least_float32(logit_scale)
        to_text, accuracy = info_nce(
            image, gather(text, gather_with_grad), images, scale, column_keys=all_texts
        )
        to_image, _ = info_nce(
            text, gather(image, gather_with_grad), texts, scale, column_keys=all_images
        )
    return (to_text + to_image) / 2, accuracy
