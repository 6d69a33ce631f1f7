"""Dropping of image patches (FLIP), which makes a training step cheaper."""

import torch
from torch import Tensor, nn

__all__ = ['PatchDropout']


class PatchDropout(nn.Module):
    """Leave out a random part of each image's patch tokens, in training only.

    The blocks then see a shorter sequence, so their cost falls with it. With four patches, half of
    them dropped and the class token c in front, two images might keep::

        c  0  1  2  3        c  1  2
        c  0  1  2  3   ->   c  0  3

    Source: Li et al., "Scaling Language-Image Pre-training via Masking" (FLIP), arXiv 2212.00794.

    Args:
        prob: Share of the patches to drop, in ``[0, 1)``; of ``N``, ``round(N * (1 - prob))``
            remain, at least one.
        num_extra_tokens: Tokens in front of the patches that are always kept.

    Raises:
        ValueError: ``prob`` is outside ``[0, 1)``.
    """

    def __init__(self, prob: float, num_extra_tokens: int = 1) -> None:
        super().__init__()
        if not 0 <= prob < 1:
            raise ValueError(f'The share of patches to drop must be in [0, 1), not {prob}.')
        self.prob = prob
        self.num_extra_tokens = num_extra_tokens

    def extra_repr(self) -> str:
        """Values of the attributes."""
        return f'prob={self.prob}, num_extra_tokens={self.num_extra_tokens}'

    def forward(self, x: Tensor) -> Tensor:
        """Tokens with their positions already added, ``(B, E + N, C)`` -> ``(B, E + kept, C)``."""
        if not self.training or self.prob == 0:
            return x
        batch, length, width = x.shape
        extra = self.num_extra_tokens
        kept = max(round((length - extra) * (1 - self.prob)), 1)
        # The places of the largest of random numbers are a random subset, drawn without the host.
        noise = torch.rand(batch, length - extra, device=x.device)
        patches = noise.topk(kept, dim=1).indices + extra  # (B, kept)
        always = torch.arange(extra, device=x.device).expand(batch, extra)
        index = torch.cat([always, patches], dim=1)  # (B, E + kept)
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, width))
