"""A text tower of today's parts: rotary positions, RMSNorm, SwiGLU, mean over the tokens."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.models.backbones.text_pooling import caption_lengths, pool_tokens, trim_padding
from mmslip.models.depth import depth_in_layers
from mmslip.registry import MODELS

__all__ = ['ModernTextTransformer']


class ModernBlock(nn.Module):
    """Pre-norm block: every token of a caption sees every other one; then SwiGLU."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def extra_repr(self) -> str:
        """Settings that the parts do not show."""
        return f'num_heads={self.num_heads}'

    def forward(self, x: Tensor, turns: Tensor, inside: Tensor) -> Tensor:
        """Mix and transform tokens.

        Args:
            x: ``(B, L, C)``.
            turns: Cosines and sines of the positions, ``(2, L, C / heads)``.
            inside: Which tokens belong to the caption, ``(B, 1, 1, L)``.

        Returns:
            ``(B, L, C)``.
        """
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, heads, L, C / heads) each
        q, k = _rotate(q, turns), _rotate(k, turns)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=inside)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))  # (B, L, C)
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)  # (B, L, hidden) each
        return x + self.down(F.silu(gate) * up)


@MODELS.register_module()
class ModernTextTransformer(BaseModule):
    """Bidirectional text transformer whose feature is the mean over the tokens of a caption.

    Rotary positions (Su et al., arXiv 2104.09864) instead of a table, so that captions of any
    length are read, RMSNorm (Zhang and Sennrich, arXiv 1910.07467) and SwiGLU (Shazeer, arXiv
    2002.05202), all without biases. Works with any tokeniser.

    Args:
        vocab_size: Number of token ids.
        width: Channels ``C``.
        num_layers: Transformer blocks.
        num_heads: Attention heads; ``width`` is an even multiple of it.
        hidden: Width within SwiGLU; by default 8/3 of ``width``, next multiple of 8, as many
            weights as an MLP four times as wide as the tower has.
        pad_id: Id of the padding, which is masked; that of the tokeniser.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: ``width`` is no even multiple of ``num_heads``.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        hidden: int | None = None,
        pad_id: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if width % (2 * num_heads):
            raise ValueError(f'width {width} is no even multiple of num_heads {num_heads}.')
        self.vocab_size, self.width, self.pad_id = vocab_size, width, pad_id
        hidden = hidden or -(-width // 3) * 8
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.layers = nn.ModuleList(
            ModernBlock(width, num_heads, hidden) for _ in range(num_layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)

    def init_weights(self) -> None:
        """Normal weights of deviation 0.02, less by depth where they end in the residual stream."""
        super().init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained':
            return
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        # Every block adds two branches to the residual stream.
        branch_std = 0.02 * (2 * len(self.layers)) ** -0.5
        for block in self.layers:
            for linear in (block.qkv, block.gate_up):
                nn.init.normal_(linear.weight, std=0.02)
            for linear in (block.proj, block.down):
                nn.init.normal_(linear.weight, std=branch_std)

    def trim(self, text: Tensor) -> Tensor:
        """Cut token ids ``(B, L)`` to the longest caption.

        Exact: what is cut is masked. The length is read on the host, so trim before copying to a
        device.
        """
        return trim_padding(text, self.pad_id)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        Embeddings have depth 0, block ``i`` has ``i + 1``, the final norm the largest.
        """
        return depth_in_layers(param_name.removeprefix(prefix), len(self.layers), 'norm')

    def forward(self, text: Tensor) -> tuple[Tensor]:
        """Encode captions.

        Args:
            text: Token ids ``(B, L)``, ``pad_id`` behind their end.

        Returns:
            One-tuple of the features ``(B, C)``.
        """
        lengths = caption_lengths(text, self.pad_id)  # (B,)
        place = torch.arange(text.shape[1], device=text.device)
        inside = (place < lengths.unsqueeze(1))[:, None, None]  # (B, 1, 1, L)
        x = self.token_embedding(text)  # (B, L, C)
        turns = _turns(place, self.width // self.layers[0].num_heads).to(x.dtype)
        for block in self.layers:
            x = block(x, turns, inside)
        return (pool_tokens(self.norm(x), text, lengths, 'mean'),)  # (B, C)


def _turns(place: Tensor, channels: int) -> Tensor:
    """Cosines and sines ``(2, L, C)`` of the angles by which channels turn at each position."""
    speed = 10000 ** -(torch.arange(0, channels, 2, device=place.device) / channels)  # (C / 2,)
    angles = torch.outer(place, speed).repeat(1, 2)  # (L, C)
    return torch.stack([angles.cos(), angles.sin()])


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn channel ``i`` with channel ``i + C / 2`` by the angles of their position."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = turns
    return x * cos + torch.cat([-second, first], dim=-1) * sin
