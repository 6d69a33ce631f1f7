"""CLIP's text tower: a causal transformer read out at the end-of-text token."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.registry import MODELS

__all__ = ['TextTransformer', 'trim_text']


def trim_text(text: Tensor) -> Tensor:
    """Cut token ids ``(B, L)`` to the longest of them.

    Exact: nothing behind an end-of-text token can reach a feature of :class:`TextTransformer`. The
    length is read on the host, so trim before copying to a device.
    """
    return text[:, : int(text.argmax(dim=-1).max()) + 1]


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the approximation of GELU that CLIP and SLIP were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        # One function with one tensor kept for its gradient, where the formula keeps three.
        return F.silu(1.702 * x) / 1.702


class CausalBlock(nn.Module):
    """Pre-norm transformer block whose tokens see only themselves and earlier ones.

    With four tokens, rows attend to the columns marked x::

        x . . .
        x x . .
        x x x .
        x x x x
    """

    def __init__(self, width: int, num_heads: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = activation()
        self.fc2 = nn.Linear(4 * width, width)

    def extra_repr(self) -> str:
        """What the parts do not show."""
        return f'num_heads={self.num_heads}'

    def forward(self, x: Tensor, end: Tensor | None = None) -> Tensor:
        """Mix and transform tokens.

        Args:
            x: ``(B, L, C)``.
            end: The one token of each caption that is asked for, ``(B,)``; all by default.

        Returns:
            ``(B, L, C)``, or ``(B, 1, C)`` with ``end``, at the cost of little more than keys and
            values.
        """
        normed = self.ln1(x)
        if end is None:
            x = x + self._attend(normed)
        else:
            rows = torch.arange(x.shape[0], device=x.device)
            x = x[rows, end].unsqueeze(1) + self._attend_from(normed, rows, end)
        return x + self.fc2(self.act(self.fc1(self.ln2(x))))  # (B, L or 1, C)

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self._heads(self.qkv(x), 3)  # each (B, heads, L, C / heads)
        # `is_causal` instead of a mask tensor lets the fused kernel run.
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))  # (B, L, C)

    def _attend_from(self, x: Tensor, rows: Tensor, end: Tensor) -> Tensor:
        """Attention of one token of each caption."""
        batch, length, width = x.shape
        weights = self.qkv.weight.split([width, 2 * width])
        biases = self.qkv.bias.split([width, 2 * width])
        (q,) = self._heads(F.linear(x[rows, end].unsqueeze(1), weights[0], biases[0]), 1)
        k, v = self._heads(F.linear(x, weights[1], biases[1]), 2)  # (B, heads, L, C / heads)
        visible = torch.arange(length, device=x.device) <= end.view(batch, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, heads, 1, C / heads)
        return self.proj(x.transpose(1, 2).reshape(batch, 1, width))  # (B, 1, C)

    def _heads(self, x: Tensor, number: int) -> Tensor:
        """Split the last dimension, ``(B, L, number * C) -> (number, B, heads, L, C / heads)``."""
        return x.unflatten(-1, (number, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


@MODELS.register_module()
class TextTransformer(BaseModule):
    """Causal text transformer of CLIP (Radford et al., arXiv 2103.00020) as SLIP uses it.

    The feature of a caption is the final-normed token at its end-of-text position. That token has
    the highest id of the vocabulary, so the position is the ``argmax`` of the ids, and everything
    behind it (padding) cannot reach it through the causal mask: cutting a batch to its longest
    caption changes no feature.

    Args:
        vocab_size: Number of token ids.
        context_length: Most tokens a caption can have; the number of position embeddings.
        width: Channels ``C``.
        num_layers: Transformer blocks.
        num_heads: Attention heads; divides ``width``.
        quick_gelu: Use QuickGELU (CLIP's and SLIP's published weights) instead of exact GELU. The
            wrong one costs accuracy silently, so state it where weights are loaded.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: ``num_heads`` does not divide ``width``.
    """

    def __init__(
        self,
        vocab_size: int = 49408,
        context_length: int = 77,
        width: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        quick_gelu: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if width % num_heads:
            raise ValueError(f'width {width} is not a multiple of num_heads {num_heads}.')
        self.width = width
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.zeros(context_length, width))
        activation = QuickGELU if quick_gelu else nn.GELU
        self.layers = nn.ModuleList(
            CausalBlock(width, num_heads, activation) for _ in range(num_layers)
        )
        self.ln_final = nn.LayerNorm(width)

    def init_weights(self) -> None:
        """Initialise as CLIP does; biases of linear layers keep PyTorch's default, except qkv."""
        super().init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained':
            return
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        attn_std = self.width**-0.5
        # Every block adds two branches to the residual stream, hence the 2 in its depth scaling.
        branch_std = attn_std * (2 * len(self.layers)) ** -0.5
        for block in self.layers:
            nn.init.normal_(block.qkv.weight, std=attn_std)
            nn.init.normal_(block.proj.weight, std=branch_std)
            nn.init.normal_(block.fc1.weight, std=(2 * self.width) ** -0.5)
            nn.init.normal_(block.fc2.weight, std=branch_std)
            # The reference attention layer starts both of its biases at zero.
            nn.init.zeros_(block.qkv.bias)
            nn.init.zeros_(block.proj.bias)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        Embeddings have depth 0, block ``i`` has ``i + 1``, the final norm the largest.
        """
        number = len(self.layers) + 2
        part, _, rest = param_name.removeprefix(prefix).partition('.')
        if part == 'layers':
            return int(rest.partition('.')[0]) + 1, number
        return (number - 1 if part == 'ln_final' else 0), number

    def forward(self, text: Tensor) -> tuple[Tensor]:
        """Encode captions.

        Args:
            text: Token ids ``(B, L)``, ``L <= context_length``, zero behind the end-of-text token.

        Returns:
            One-tuple of the features ``(B, C)``.
        """
        x = self.token_embedding(text) + self.pos_embed[: text.shape[1]]  # (B, L, C)
        *blocks, last = self.layers
        for block in blocks:
            x = block(x)
        # The last block is asked for the token that is read, and so is the norm: both act, beyond
        # attention, on each token by itself.
        x = last(x, text.argmax(dim=-1))  # (B, 1, C)
        return (self.ln_final(x[:, 0]),)  # (B, C)
