"""Projection of a tower's feature into the joint image-text space."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.registry import MODELS

__all__ = ['LinearProjection', 'pool']


def pool(feats: tuple[Tensor, ...]) -> Tensor:
    """The feature ``(B, C)`` of each image in a backbone's output tuple.

    The last entry counts: a vector ``(B, C)`` as it is, a feature map ``(B, C, H, W)`` by its
    spatial mean (ResNet, Swin, ConvNeXt), a token sequence ``(B, L, C)`` by its first token, the
    class token (MAE's backbone).
    """
    x = feats[-1]
    if x.dim() == 4:
        return x.mean(dim=(2, 3))  # (B, C, H, W) -> (B, C)
    return x[:, 0] if x.dim() == 3 else x  # (B, L, C) -> (B, C)


@MODELS.register_module()
class LinearProjection(BaseModule):
    """Matrix ``(C, D)`` behind a tower (Radford et al., arXiv 2103.00020).

    Reads the image's feature as :func:`pool` finds it in the tower's output.

    Args:
        in_channels: Feature width ``C``.
        out_channels: Width ``D`` of the joint space.
        bias: Add a learned vector, as SigLIP does to texts.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.weight = nn.Parameter(torch.zeros(in_channels, out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def init_weights(self) -> None:
        """Normal matrix of standard deviation ``C ** -0.5``."""
        super().init_weights()
        nn.init.normal_(self.weight, std=self.in_channels**-0.5)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Map a backbone's output tuple to embeddings ``(B, D)``."""
        x = pool(feats) @ self.weight  # (B, C) x (C, D) -> (B, D)
        return x if self.bias is None else x + self.bias
