"""SLIP's vision tower: mmpretrain's ViT in the paper's shapes and initialisation."""

from typing import Any, ClassVar

from mmengine.model import BaseModule
from mmpretrain.models import VisionTransformer as MMPretrainVisionTransformer
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from mmslip.models.backbones.partial_linear import partial_linear
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


class Attention(BaseModule):
    """mmpretrain's ``MultiheadAttention``, cheaper: the same values and gradients.

    Queries, keys and values come from one ``unbind``, whose gradient is one copy. The original
    selects each of them, and the gradient of a selection is a tensor of the size of all three,
    zero but for a third (see docs/benchmarks.md).

    Args:
        attn: The attention whose parts, and parameters, this one takes over.
    """

    def __init__(self, attn: MultiheadAttention) -> None:
        super().__init__(attn.init_cfg)
        self.num_heads, self.head_dims = attn.num_heads, attn.head_dims
        self.scaled_dot_product_attention = attn.scaled_dot_product_attention
        self.qkv, self.attn_drop, self.proj = attn.qkv, attn.attn_drop, attn.proj
        self.proj_drop, self.out_drop, self.gamma1 = attn.proj_drop, attn.out_drop, attn.gamma1

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Mix tokens ``(B, N, C)``; returns the ``first`` ones alone, or all."""
        if first is None:
            q, k, v = self._heads(self.qkv(x)).unbind(2)  # each (B, N, heads, D)
        else:
            width = self.num_heads * self.head_dims
            (q,) = self._heads(partial_linear(self.qkv, x[:, :first], slice(width))).unbind(2)
            k, v = self._heads(partial_linear(self.qkv, x, slice(width, None))).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        dropout = self.attn_drop if self.training else 0.0
        x = self.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # (B, heads, N, D)
        x = self.proj(x.transpose(1, 2).flatten(2))  # (B, N, C)
        return self.out_drop(self.gamma1(self.proj_drop(x)))

    def _heads(self, x: Tensor) -> Tensor:
        """Split the last dimension, ``(B, N, number * C) -> (B, N, number, heads, D)``."""
        return x.unflatten(-1, (-1, self.num_heads, self.head_dims))


class ClassTokenLayer(TransformerEncoderLayer):
    """The last block of a tower that returns its class token: it computes that token alone.

    Keys and values come from all tokens; queries, projection and feed-forward part of the others
    are left out, since nothing reads them. Values, gradients and drop path are those of the whole
    block.

    Args:
        layer: The block whose parts, and parameters, this one takes over.
    """

    def __init__(self, layer: TransformerEncoderLayer) -> None:
        BaseModule.__init__(self, layer.init_cfg)  # the parent's would make other weights
        self.embed_dims = layer.embed_dims
        self.ln1, self.attn, self.ln2, self.ffn = layer.ln1, layer.attn, layer.ln2, layer.ffn

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens ``(B, N, C)``, the class token first, to ``(B, 1, C)``."""
        x = x[:, :1] + self.attn(self.ln1(x), first=1)
        return self.ffn(self.ln2(x), identity=x)


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
        patch_cfg: Settings of mmcv's ``PatchEmbed``, such as ``conv_type``.
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

    def __init__(
        self,
        *args: Any,
        patch_dropout: float = 0.0,
        patch_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        patch_cfg = dict(conv_type='mmslip.PatchConv2d') | (patch_cfg or {})
        super().__init__(*args, patch_cfg=patch_cfg, **kwargs)
        for layer in self.layers:
            layer.attn = Attention(layer.attn)
        if patch_dropout and self.out_type == 'featmap':
            raise ValueError('patch_dropout leaves no feature map: choose another out_type or 0.')
        if self.out_type == 'cls_token' and list(self.out_indices) == [self.num_layers - 1]:
            self.layers[-1] = ClassTokenLayer(self.layers[-1])
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

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        The norm in front of the blocks (``pre_norm``, CLIP's) belongs to the embeddings; the parent
        counts it with what follows the blocks.
        """
        depth, number = super().get_layer_depth(param_name, prefix)
        return (0 if param_name.removeprefix(prefix).startswith('pre_norm.') else depth), number
