"""A patch embedding's convolution as a matrix product."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmslip.registry import MODELS

__all__ = ['PatchConv2d']


@MODELS.register_module()
class PatchConv2d(nn.Conv2d):
    """A convolution of windows that neither overlap nor are padded, as one matrix product.

    Values and weights are those of ``nn.Conv2d``, whose kernels are slow for 3 channels.

    Raises:
        ValueError: ``stride`` is not ``kernel_size``, or there are groups, padding or dilation.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain = self.groups == 1 and set(self.padding) == {0} and set(self.dilation) == {1}
        if self.stride != self.kernel_size or not plain:
            raise ValueError(
                "Patches that overlap, or with groups, padding or dilation, need conv_type='Conv2d'"
                ' in patch_cfg.'
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, E, h, w)``; what is left over at the edges is cut off."""
        size, (height, width) = self.kernel_size, x.shape[2:]
        h, w = height // size[0], width // size[1]
        x = x[:, :, : h * size[0], : w * size[1]]
        x = x.unflatten(3, (w, size[1])).unflatten(2, (h, size[0]))  # (B, C, h, p, w, q)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, C * p * q)
        return F.linear(x, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
