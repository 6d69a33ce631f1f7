"""SLIP's vision tower: mmpretrain's ViT in the paper's shapes and initialisation."""

from typing import Any, ClassVar

from mmpretrain.models import VisionTransformer as MMPretrainVisionTransformer
from torch import nn

from mmslip.models.backbones.patch_dropout import PatchDropout
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

    Everything but the architecture table, the initialisation and patch dropout is mmpretrain's
    :class:`mmpretrain.models.VisionTransformer`, whose arguments it takes. ``arch`` is ``'small'``
    (384 wide, 12 layers, **12** heads: MoCo v3's ViT-S, not DeiT's with 6), ``'base'`` (768/12/12),
    ``'large'`` (1024/24/16), or a dict with ``embed_dims``, ``num_layers``, ``num_heads`` and
    ``feedforward_channels``.

    The forward pass maps images ``(B, 3, H, W)`` to a tuple whose last entry is the final-normed
    class token ``(B, C)``. Images of another size than ``img_size``, such as smaller
    self-supervised views, are met with a resized position embedding.

    Args:
        patch_dropout: Share of the patches that every training pass leaves out, whatever the view
            is for; see :class:`PatchDropout`. It adds no weights: to tune a model without it at the
            end (FLIP), load the checkpoint into one with 0.
        *args: Arguments of mmpretrain's class.
        **kwargs: Likewise.

    Raises:
        ValueError: ``patch_dropout`` is outside ``[0, 1)``, or ``out_type`` asks for a feature map,
            which has no place for a dropped patch to be missing from.

    Source: Dosovitskiy et al., arXiv 2010.11929; SLIP, arXiv 2112.12750; the initialisation is
    timm's: truncated normal of standard deviation 0.02 for linear weights, class token and position
    embedding, zero biases.
    """

    arch_zoo: ClassVar[dict[str, dict]] = {
        'small': _arch(384, 12, 12),
        'base': _arch(768, 12, 12),
        'large': _arch(1024, 24, 16),
    }

    def __init__(self, *args: Any, patch_dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if patch_dropout and self.out_type == 'featmap':
            raise ValueError('patch_dropout leaves no feature map: choose another out_type or 0.')
        # mmpretrain calls `drop_after_pos` once the positions are added and before the blocks.
        self.drop_after_pos = nn.Sequential(
            self.drop_after_pos, PatchDropout(patch_dropout, self.num_extra_tokens)
        )

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
