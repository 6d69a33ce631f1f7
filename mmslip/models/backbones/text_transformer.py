"""CLIP's text tower: a causal transformer read out at the end-of-text token."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmslip.models.backbones.partial_linear import partial_linear
from mmslip.models.depth import depth_in_layers
from mmslip.registry import MODELS

__all__ = ['TextTransformer']


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
        """Settings that the parts do not show."""
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
        read = x[rows, end].unsqueeze(1)  # (B, 1, C)
        (q,) = self._heads(partial_linear(self.qkv, read, slice(width)), 1)
        k_v = partial_linear(self.qkv, x, slice(width, None))
        k, v = self._heads(k_v, 2)  # (B, heads, L, C / heads)
        visible = torch.arange(length, device=x.device) <= end.view(batch, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, heads, 1, C / heads)
        return self.proj(x.transpose(1, 2).reshape(batch, 1, width))  # (B, 1, C)

    def _heads(self, x: Tensor, number: int) -> Tensor:
        """Split the last dimension, ``(B, L, number * C) -> (number, B, heads, L, C / heads)``."""
        return x.unflatten(-1, (number, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


@MODELS.register_module()
class TextTransformer(BaseModule):
    """Causal text transformer of CLIP (Radford et al., arXiv 2103.00020) as SLIP uses it.

    The feature of a caption is the final-normed token at its end-of-text position. In CLIP's
    vocabulary that token has the highest id, so the position is the ``argmax`` of the ids; with
    another vocabulary, state ``end_id``. Everything behind it (padding) cannot reach it through the
    causal mask: cutting a batch to its longest caption changes no feature.

    Args:
        vocab_size: Number of token ids.
        context_length: Most tokens a caption can have; the number of position embeddings.
        width: Channels ``C``.
        num_layers: Transformer blocks.
        num_heads: Attention heads; divides ``width``.
        quick_gelu: Use QuickGELU (CLIP's and SLIP's published weights) instead of exact GELU. The
            wrong one costs accuracy silently, so state it where weights are loaded.
        end_id: Id of the token whose feature is taken, the first of a caption; ``'highest'`` takes
            the highest id of each caption.
        resize_positions: What becomes of position embeddings that are loaded for another
            ``context_length``: ``'interpolate'`` spreads them linearly over this one, the first
            and the last staying what they are; ``'extend'`` keeps each in its place, cuts what is
            too much, and leaves further positions as they are initialised. By default they do not
            fit.
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
        end_id: int | Literal['highest'] = 'highest',
        resize_positions: Literal['interpolate', 'extend'] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if width % num_heads:
            raise ValueError(f'width {width} is not a multiple of num_heads {num_heads}.')
        if resize_positions not in (None, 'interpolate', 'extend'):
            raise ValueError(
                f"resize_positions is {resize_positions!r}, neither 'interpolate' nor 'extend'."
            )
        self.vocab_size = vocab_size
        self.width = width
        self.end_id = end_id
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.zeros(context_length, width))
        activation = QuickGELU if quick_gelu else nn.GELU
        self.layers = nn.ModuleList(
            CausalBlock(width, num_heads, activation) for _ in range(num_layers)
        )
        self.ln_final = nn.LayerNorm(width)
        self.resize_positions = resize_positions
        self.register_load_state_dict_pre_hook(_resize_positions)

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

    def trim(self, text: Tensor) -> Tensor:
        """Cut token ids ``(B, L)`` behind the last end-of-text token, to ``(B, longest)``.

        Exact: no later token reaches a feature. The length is read on the host, so trim before
        copying to a device.
        """
        return text[:, : int(self._end(text).max()) + 1]

    def _end(self, text: Tensor) -> Tensor:
        """Position ``(B,)`` of the token that is read; the first of several equal ones."""
        marks = text if self.end_id == 'highest' else (text == self.end_id).int()
        return marks.argmax(dim=-1)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, and the number of depths, as mmpretrain's backbones count them.

        Embeddings have depth 0, block ``i`` has ``i + 1``, the final norm the largest.
        """
        return depth_in_layers(param_name.removeprefix(prefix), len(self.layers), 'ln_final')

    def forward(self, text: Tensor) -> tuple[Tensor]:
        """Encode captions.

        Args:
            text: Token ids ``(B, L)``, ``L <= context_length``, of any value behind the end token.

        Returns:
            One-tuple of the features ``(B, C)``.
        """
        x = self.token_embedding(text) + self.pos_embed[: text.shape[1]]  # (B, L, C)
        *blocks, last = self.layers
        for block in blocks:
            x = block(x)
        # The last block is asked for the token that is read, and so is the norm: both act, beyond
        # attention, on each token by itself.
        x = last(x, self._end(text))  # (B, 1, C)
        return (self.ln_final(x[:, 0]),)  # (B, C)


def _resize_positions(
    tower: TextTransformer, weights: dict[str, Any], prefix: str, *args: object
) -> None:
    """Fit loaded position embeddings to the tower's context length, in place, as it says."""
    name = f'{prefix}pos_embed'
    loaded, own = weights.get(name), tower.pos_embed
    same_width = loaded is not None and loaded.shape[1:] == own.shape[1:]
    if tower.resize_positions is None or not same_width or len(loaded) == len(own):
        return
    if tower.resize_positions == 'interpolate':
        # (L, C) -> (1, C, L) -> (1, C, l) -> (l, C)
        resized = F.interpolate(loaded.T.unsqueeze(0), len(own), mode='linear', align_corners=True)[
            0
        ].T
    else:
        resized = torch.cat([loaded[: len(own)], own.detach()[len(loaded) :].to(loaded)])
    weights[name] = resized
