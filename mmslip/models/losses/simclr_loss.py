"""The self-supervised contrastive loss between two views."""

import torch
from mmengine.dist import get_rank
from torch import Tensor

from mmslip.models.losses.gather import gather
from mmslip.models.losses.info_nce import info_nce
from mmslip.models.losses.pairs import unit_pairs

__all__ = ['simclr_loss']


def simclr_loss(view1: Tensor, view2: Tensor, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    """Normalised temperature-scaled cross entropy (Chen et al., arXiv 2002.05709, eq. 1).

    Each embedding must find its other view among all embeddings of both views but itself. With
    three images in one process, the row of the first view of image 0 reads (x the match, o itself,
    left out)::

               view 2     view 1
        a0   x  .  .  |  o  .  .

    Every rank compares its ``b`` rows with the ``B`` of all ranks, once for each view, so the
    logits are ``2 x (b, 2B)``. A model that knows nothing has a loss of ``ln(2B - 1)``.

    Args:
        view1: Embeddings of the first views ``(b, D)``, any scale; normalised here, in fp32 or
            better.
        view2: Embeddings of the second views ``(b, D)``, row ``i`` from the same image.
        temperature: Divides the cosine similarities.

    Returns:
        The loss (mean over this rank's images and both views) and the percentage of this rank's
        first views that are closest to their second view, both scalars.
    """
    with torch.autocast(view1.device.type, enabled=False):
        a, b = unit_pairs(view1, view2, 'first and second views')  # (b, D) each
        all_a, all_b = gather(a), gather(b)  # (B, D) each
        labels = torch.arange(len(a), device=a.device) + get_rank() * len(a)
        itself = labels + len(all_a)
        scale = 1 / temperature
        loss_a, accuracy = info_nce(a, torch.cat([all_b, all_a]), labels, scale, itself)
        loss_b, _ = info_nce(b, torch.cat([all_a, all_b]), labels, scale, itself)
    return (loss_a + loss_b) / 2, accuracy
