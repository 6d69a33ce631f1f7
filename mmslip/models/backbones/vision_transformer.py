"""SLIP's vision tower: mmpretrain's ViT in the paper's shapes and initialisation."""

from typing import ClassVar

from mmpretrain.models import VisionTransformer as MMPretrainVisionTransformer
from torch import nn

from mmslip.registry import MODELS

__all__ = ['VisionTransformer']


def _arch(embed_dims: int, num_layers: int, num_heads: int) -> dict:
    return dict(
        embed_dims=embed_dims,
        num_layers=num_layers,
        num_heads=num_heads,
        feedforward_channels=4 * embed_dims,
    )


@MODELS.register_module()
class VisionTransformer(MMPretrainVisionTransformer):
    """Vision Transformer with class-token output, as SLIP pre-trains it.

    Everything but the architecture table and the initialisation is mmpretrain's
    :class:`mmpretrain.models.VisionTransformer`, whose arguments it takes. ``arch`` is ``'small'``
    (384 wide, 12 layers, **12** heads: MoCo v3's ViT-S, not DeiT's with 6), ``'base'`` (768/12/12),
    ``'large'`` (1024/24/16), or a dict with ``embed_dims``, ``num_layers``, ``num_heads`` and
    ``feedforward_channels``.

    The forward pass maps images ``(B, 3, H, W)`` to a tuple whose last entry is the final-normed
    class token ``(B, C)``.

    Source: Dosovitskiy et al., arXiv 2010.11929; SLIP, arXiv 2112.12750; the initialisation is
    timm's: truncated normal of standard deviation 0.02 for linear weights, class token and position
    embedding, zero biases.
    """

    arch_zoo: ClassVar[dict[str, dict]] = {
        'small': _arch(384, 12, 12),
        'base': _arch(768, 12, 12),
        'large': _arch(1024, 24, 16),
    }

    def init_weights(self) -> None:
        """Initialise as timm does; a ``Pretrained`` ``init_cfg`` is left as loaded."""
        super().init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained':
            return
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.with_cls_token:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The patch convolution keeps PyTorch's default, in timm as in mmpretrain.
