"""The self-supervised contrastive loss between two views."""

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor

from mmslip.models.losses.gather import gather

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
        view1: Embeddings of the first views ``(b, D)``, any scale; normalised here, in fp32.
        view2: Embeddings of the second views ``(b, D)``, row ``i`` from the same image.
        temperature: Divides the cosine similarities.

    Returns:
        The loss (mean over this rank's images and both views) and the percentage of this rank's
        first views that are closest to their second view, both scalars.
    """
    with torch.autocast(view1.device.type, enabled=False):
        a = F.normalize(view1.float(), dim=-1)  # (b, D)
        b = F.normalize(view2.float(), dim=-1)  # (b, D)
        all_a, all_b = gather(a), gather(b)  # (B, D) each
        rows = torch.arange(len(a), device=a.device)
        labels = rows + get_rank() * len(a)  # where this rank's rows stand among all

        def logits(x: Tensor, other: Tensor, same: Tensor) -> Tensor:
            to_other = x @ other.T  # (b, D) x (D, B) -> (b, B)
            to_same = (x @ same.T).index_put((rows, labels), x.new_tensor(-torch.inf))  # (b, B)
            return torch.cat([to_other, to_same], dim=1) / temperature  # (b, 2B)

        logits_a = logits(a, all_b, all_a)
        logits_b = logits(b, all_a, all_b)
        loss = (F.cross_entropy(logits_a, labels) + F.cross_entropy(logits_b, labels)) / 2
        accuracy = 100 * (logits_a.argmax(dim=-1) == labels).float().mean()
    return loss, accuracy
