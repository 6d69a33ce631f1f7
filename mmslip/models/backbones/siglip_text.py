"""SigLIP's text tower: all tokens see all others, padding too, and the last one is read."""

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from mmslip.models.backbones.vision_transformer import Attention
from mmslip.models.depth import depth_in_layers
from mmslip.registry import MODELS

__all__ = ['SigLIPTextTransformer']


@MODELS.register_module()
class SigLIPTextTransformer(BaseModule):
    """Bidirectional text transformer of SigLIP (Zhai et al., arXiv 2303.15343).

    Padding is read like any token, and the feature of a caption is the last position of its row:
    so all rows are as long as the table of positions, and nothing is trimmed. The tokeniser states
    ``padding_counts=True``. Its blocks are those of the image tower.

    Args:
        vocab_size: Number of token ids.
        context_length: Number of ids in every row.
        width: Channels ``C``.
        num_layers: Transformer blocks.
        num_heads: Attention heads; divides ``width``.
        feedforward_channels: Width within the MLPs; four times ``width`` by default.
        act_cfg: Activation of the MLPs.
        norm_cfg: The norms.
        init_cfg: mmengine's initialisation config.
    """

    whole_rows = True  # of context_length ids, whatever the length of a caption

    def __init__(
        self,
        vocab_size: int = 32000,
        context_length: int = 64,
        width: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        feedforward_channels: int | None = None,
        act_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.vocab_size, self.context_length, self.width = vocab_size, context_length, width
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.zeros(context_length, width))
        block = dict(
            embed_dims=width,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels or 4 * width,
            act_cfg=act_cfg or dict(type='GELU', approximate='tanh'),
            norm_cfg=norm_cfg or dict(type='LN', eps=1e-6),
        )
        self.layers = nn.ModuleList(TransformerEncoderLayer(**block) for _ in range(num_layers))
        self.ln_final = build_norm_layer(block['norm_cfg'], width)
        for layer in self.layers:
            layer.attn = Attention(layer.attn)

    def init_weights(self) -> None:
        """Embeddings as CLIP's, linear layers as the image tower's."""
        super().init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained':
            return
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        Embeddings have depth 0, block ``i`` has ``i + 1``, the final norm the largest.
        """
        return depth_in_layers(param_name.removeprefix(prefix), len(self.layers), 'ln_final')

    def forward(self, text: Tensor) -> tuple[Tensor]:
        """Encode captions.

        Args:
            text: Token ids with their padding, ``(B, L)``; ``L`` is ``context_length``.

        Returns:
            One-tuple of the features ``(B, C)``.
        """
        x = self.token_embedding(text) + self.pos_embed[: text.shape[1]]  # (B, L, C)
        for layer in self.layers:
            x = layer(x)  # (B, L, C)
        return (self.ln_final(x[:, -1]),)  # (B, C)
