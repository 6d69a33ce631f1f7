"""One feature of each caption from the features of its tokens."""

import torch
from torch import Tensor

__all__ = ['POOLINGS', 'caption_lengths', 'pool_tokens', 'trim_padding']

POOLINGS = ('cls', 'eos', 'last', 'mean')


def caption_lengths(ids: Tensor, pad_id: int) -> Tensor:
    """Number of tokens of each caption ``(B,)``, padding left out; of an empty row 1.

    Padding is what follows the last id that is not ``pad_id``: the same id within a caption is a
    token of it (CLIP's pad id is also that of the exclamation mark).

    Args:
        ids: ``(B, L)``.
        pad_id: The id that fills rows; never the one that ends captions.
    """
    number = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return ((ids != pad_id) * number).amax(dim=-1).clamp(min=1)  # (B,)


def trim_padding(ids: Tensor, pad_id: int) -> Tensor:
    """Cut ids ``(B, L)`` to the longest caption; read on the host, so before a copy to a device."""
    return ids[:, : int(caption_lengths(ids, pad_id).max())]


def pool_tokens(
    x: Tensor, ids: Tensor, lengths: Tensor, pooling: str, end_id: int | None = None
) -> Tensor:
    """The feature ``(B, C)`` of each caption.

    Args:
        x: Features of tokens, ``(B, L, C)``.
        ids: Of the tokens, ``(B, L)``.
        lengths: Of :func:`caption_lengths`.
        pooling: ``'cls'`` takes the first token, ``'eos'`` the last one whose id is ``end_id``,
            ``'last'`` the last one of the caption, ``'mean'`` the mean over its tokens.
        end_id: The id that ends captions, for ``'eos'``.
    """
    place = torch.arange(x.shape[1], device=x.device)
    if pooling == 'mean':
        inside = (place < lengths.unsqueeze(1)).unsqueeze(-1)  # (B, L, 1)
        return (x * inside).sum(dim=1) / lengths.unsqueeze(1)  # (B, C)
    if pooling == 'cls':
        return x[:, 0]
    end = lengths - 1 if pooling == 'last' else ((ids == end_id) * place).amax(dim=-1)
    return x[torch.arange(len(x), device=x.device), end]
