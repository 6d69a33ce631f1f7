"""The pairwise sigmoid loss of image and text."""

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmslip.models.losses.gather import gather
from mmslip.models.losses.precision import at_least_float32

__all__ = ['siglip_loss']

# Elements of the logits that are held at once, as in `info_nce`: 64 MiB in fp32.
_MAX_LOGITS = 2**24


def siglip_loss(
    image_embed: Tensor, text_embed: Tensor, logit_scale: Tensor, logit_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Sigmoid loss over all image-text pairs (Zhai et al., arXiv 2303.15343, eq. 1).

    Each of the ``B x B`` pairs is a binary question of its own, whether text and image belong
    together::

        loss = -1/B sum_ij log sigmoid(y_ij (scale cos_ij + bias)),    y_ij = 1 if i = j, -1 else

    Every rank asks it of its own ``b`` images and all texts; blocks of images beyond ``2 ** 24``
    logits follow one another, and are computed again in the backward pass. A model that knows
    nothing, at the paper's start (scale 10, bias -10), has a loss of about 10: the match of each
    image is taken for a stranger.

    Args:
        image_embed: ``(b, D)``, any scale; normalised here, in fp32 or better.
        text_embed: ``(b, D)``, row ``i`` matches image ``i``.
        logit_scale: The factor on cosine similarities (after ``exp``), one element.
        logit_bias: Added to the scaled similarities, one element.

    Returns:
        The loss (over this rank's images, so that the mean over ranks is the loss of one process
        with all pairs) and the percentage of this rank's images whose own text scores highest,
        both scalars.
    """
    with torch.autocast(image_embed.device.type, enabled=False):
        image = F.normalize(at_least_float32(image_embed), dim=-1)  # (b, D)
        texts = gather(F.normalize(at_least_float32(text_embed), dim=-1))  # (B, D)
        scale, bias = at_least_float32(logit_scale), at_least_float32(logit_bias)
        labels = torch.arange(len(image), device=image.device) + get_rank() * len(image)
        size = max(1, _MAX_LOGITS // len(texts))
        blocks = list(zip((scale * image).split(size), labels.split(size), strict=True))
        if len(blocks) == 1:
            loss, correct = _block(*blocks[0], texts, bias)
        else:
            results = [
                checkpoint(
                    *(_block, rows, label, texts, bias),
                    use_reentrant=False,
                    preserve_rng_state=False,  # nothing is drawn
                )
                for rows, label in blocks
            ]
            loss, correct = (torch.stack(values).sum() for values in zip(*results, strict=True))
    return loss / len(image), 100 * correct / len(image)


def _block(rows: Tensor, labels: Tensor, columns: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss and number of hits of some images."""
    logits = rows @ columns.T + bias  # (r, D) x (D, B) -> (r, B)
    # -log sigmoid(-x) is softplus(x), and -log sigmoid(x) is softplus(x) - x.
    loss = F.softplus(logits).sum() - logits.gather(1, labels[:, None]).sum()
    return loss, (logits.detach().argmax(dim=-1) == labels).sum()
