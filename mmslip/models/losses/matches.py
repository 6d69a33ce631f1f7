"""Which texts of all processes belong to which images, beyond one text for each image."""

from typing import NamedTuple

import torch
from mmengine.dist import get_rank
from torch import Tensor

from mmslip.models.losses.gather import gather

__all__ = ['Matches', 'is_match', 'match']


class Matches(NamedTuple):
    """What the images and the texts of this process belong to.

    With one text for each image and no keys, ``images`` and ``texts`` are the numbers ``(b,)`` of
    the matching columns, and nothing else is needed. Otherwise all four are keys, for
    :func:`is_match`.
    """

    images: Tensor
    texts: Tensor
    all_images: Tensor | None = None
    all_texts: Tensor | None = None


def match(text: Tensor, keys: Tensor | None) -> Matches:
    """Matches of the images and texts of a batch.

    Args:
        text: Embeddings ``(b, D)``, or ``(b, m, D)`` with ``m`` texts of each image.
        keys: ``(b, 1 + m)``, of each image and its texts; equal numbers for an equal image, or an
            equal text. None: an image matches its own texts only.

    Raises:
        ValueError: There are not as many keys as texts.
    """
    number, m = len(text), text.shape[1] if text.dim() == 3 else 1
    rows = torch.arange(number, device=text.device) + get_rank() * number
    if keys is None and m == 1:
        return Matches(rows, rows)
    if keys is not None and keys.shape != (number, 1 + m):
        raise ValueError(
            f'keys of shape {tuple(keys.shape)} do not fit texts of shape {tuple(text.shape)}: '
            f'each image has a key and one for each of its texts, ({number}, {1 + m}).'
        )
    images = rows[:, None] if keys is None else keys  # (b, 1) or (b, 1 + m)
    texts = images[:, :1].repeat_interleave(m, dim=0)  # (b * m, 1)
    if keys is not None:
        texts = torch.cat([texts, keys[:, 1:].reshape(-1, 1)], dim=1)  # (b * m, 2)
    return Matches(images, texts, gather(images), gather(texts))


def is_match(rows: Tensor, columns: Tensor) -> Tensor:
    """Whether row and column are of one image, or have a text in common, ``(r, N)``.

    Args:
        rows: Keys ``(r, 1 + p)``: of the image, and of texts, if any.
        columns: ``(N, 1 + q)``, likewise.
    """
    found = rows[:, :1] == columns[:, 0]
    for mine in rows[:, 1:].T:
        for theirs in columns[:, 1:].T:
            found |= mine[:, None] == theirs
    return found
