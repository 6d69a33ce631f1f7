"""One embedding of an image from all its patches: SigLIP's head."""

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from mmslip.registry import MODELS

__all__ = ['AttentionPooling']


@MODELS.register_module()
class AttentionPooling(BaseModule):
    """A learned query that attends to all patches, and an MLP behind it.

    Stands where a projection does, as SigLIP (Zhai et al., arXiv 2303.15343) has none: behind a
    tower with ``out_type='featmap'``, for a ViT ``with_cls_token=False`` as well. The queries are
    those of multihead attention pooling (Lee et al., arXiv 1810.00825).

    Args:
        in_channels: Width ``C`` of the patches, and of the embedding.
        num_heads: Attention heads; divides ``in_channels``.
        feedforward_channels: Width within the MLP; four times ``in_channels`` by default.
        act_cfg: Activation of the MLP.
        norm_cfg: Norm in front of the MLP.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channels: int,
        num_heads: int,
        feedforward_channels: int | None = None,
        act_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.probe = nn.Parameter(torch.zeros(1, 1, in_channels))
        self.attention = nn.MultiheadAttention(in_channels, num_heads, batch_first=True)
        self.norm = build_norm_layer(norm_cfg or dict(type='LN', eps=1e-6), in_channels)
        hidden = feedforward_channels or 4 * in_channels
        self.ffn = FFN(in_channels, hidden, act_cfg=act_cfg or dict(type='GELU'))

    def init_weights(self) -> None:
        """Normal query of standard deviation ``C ** -0.5``; the rest keeps PyTorch's default."""
        super().init_weights()
        nn.init.normal_(self.probe, std=self.probe.shape[-1] ** -0.5)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Map a backbone's output tuple to embeddings ``(B, C)``.

        Args:
            feats: The last entry is a feature map ``(B, C, H, W)``, or tokens ``(B, N, C)``.

        Raises:
            ValueError: It is a vector of each image.
        """
        x = feats[-1]
        if x.dim() == 2:
            raise ValueError(
                'mmslip.AttentionPooling reads the patches of an image, but model.backbone gives '
                "one vector: set its out_type='featmap'."
            )
        x = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x  # (B, N, C)
        query = self.probe.expand(x.shape[0], -1, -1)  # (B, 1, C)
        x = self.attention(query, x, x, need_weights=False)[0]  # (B, 1, C)
        return self.ffn(self.norm(x), identity=x)[:, 0]  # (B, C)
