"""The pairwise sigmoid loss of image and text."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmslip.models.losses.blocks import sum_over_blocks
from mmslip.models.losses.gather import gather
from mmslip.models.losses.matches import is_match, match
from mmslip.models.losses.pairs import unit_pairs
from mmslip.models.losses.precision import at_least_float32

__all__ = ['siglip_loss']


def siglip_loss(
    image_embed: Tensor,
    text_embed: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    keys: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sigmoid loss over all image-text pairs (Zhai et al., arXiv 2303.15343, eq. 1).

    Each of the ``B x B m`` pairs of ``B`` images with ``m`` texts each (one, in the paper) is a
    binary question of its own, whether text and image belong together::

        loss = -1/(B m) sum_it log sigmoid(y_it (scale cos_it + bias)),
        y_it = 1 if t is a text of image i, -1 else

    With keys, ``y_it`` is 1 as well where ``t`` is a text of an equal image, or equals a text of
    image ``i``. Every rank asks it of its own ``b`` images and all texts, in blocks
    (:func:`mmslip.models.losses.blocks.sum_over_blocks`). A model that knows nothing, at the
    paper's start (scale 10, bias -10), has a loss of about 10 for each match of a text: it is taken
    for a negative.

    Args:
        image_embed: ``(b, D)``, any scale; normalised here, in fp32 or better.
        text_embed: ``(b, D)``, row ``i`` matches image ``i``; or ``(b, m, D)``, with ``m`` texts of
            each, as many on every rank.
        logit_scale: The factor on cosine similarities (after ``exp``), one element.
        logit_bias: Added to the scaled similarities, one element.
        keys: Integers ``(b, 1 + m)``, of each image and its texts, equal for equal ones.

    Returns:
        The loss (over this rank's images, so that the mean over ranks is the loss of one process
        with all pairs) and the percentage of this rank's images for which a text of their own
        scores highest, both scalars.
    """
    with torch.autocast(image_embed.device.type, enabled=False):
        image, text = unit_pairs(image_embed, text_embed, 'images and texts')
        images, _, _, all_texts = match(text, keys)
        text = text.flatten(0, -2)  # (b, D) or (b * m, D)
        scale, bias = at_least_float32(logit_scale), at_least_float32(logit_bias)
        loss, correct = sum_over_blocks(
            _block, (scale * image, images), gather(text), bias, all_texts
        )
    return loss / len(text), 100 * correct / len(image)


def _block(
    rows: Tensor, labels: Tensor, columns: Tensor, bias: Tensor, column_keys: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Summed loss and number of hits of some images."""
    logits = rows @ columns.T + bias  # (r, D) x (D, N) -> (r, N)
    best = logits.detach().argmax(dim=-1)
    # -log sigmoid(-x) is softplus(x), and -log sigmoid(x) is softplus(x) - x.
    loss = F.softplus(logits).sum()
    if column_keys is None:
        return loss - logits.gather(1, labels[:, None]).sum(), (best == labels).sum()
    matches = is_match(labels, column_keys)  # (r, N)
    return loss - (matches * logits).sum(), matches.gather(1, best[:, None]).sum()
