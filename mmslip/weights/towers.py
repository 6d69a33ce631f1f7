"""The towers of a model as modules of their own, from prepared pixels and ids to embeddings."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmslip.datasets import BaseTokenizer
from mmslip.models.necks import pool
from mmslip.models.slip import embedding_of

__all__ = ['Pair', 'TextTower', 'Tower', 'towers_of']


class Tower(nn.Module):
    """A backbone with its projection: normalised embeddings; or without: its features.

    In half precision as well, it takes and gives float32, in which it normalises.

    Args:
        backbone: Of images.
        neck: Projection.
        **options: Further arguments of the backbone.
    """

    inputs = ('pixel_values',)
    outputs = ('image_embeds',)

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, **options: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        """Encode pixels ``(B, 3, H, W)``."""
        if x.is_floating_point():  # ids stay integers
            x = x.to(next(self.parameters()).dtype)
        feats = self.backbone(x, **self.options)
        if self.neck is None:
            return pool(feats).float()  # (B, C)
        return F.normalize(embedding_of(self.neck(feats)).float(), dim=-1)  # (B, D)


class TextTower(Tower):
    """A :class:`Tower` of texts that reads rows as its own tokeniser makes them.

    Other libraries pad with other ids, and the tokeniser of transformers.js cuts the end off a text
    that is too long: whatever stands behind the end becomes padding, and where there is no end, the
    last id becomes it. Where the backbone reads the padding, rows get all of it.

    Args:
        backbone: Of texts.
        neck: Projection.
        tokenizer: Of the texts.
    """

    inputs = ('input_ids',)
    outputs = ('text_embeds',)

    def __init__(self, backbone: nn.Module, neck: nn.Module, tokenizer: BaseTokenizer) -> None:
        super().__init__(backbone, neck)
        self.start = len(tokenizer.before)
        self.end_id, self.pad_id = tokenizer.end_id, tokenizer.pad_id
        whole_rows = getattr(backbone, 'whole_rows', False)
        self.row_length = tokenizer.context_length if whole_rows else None

    def forward(self, ids: Tensor) -> Tensor:
        """Encode ids ``(B, L)``."""
        place = torch.arange(ids.shape[1], device=ids.device)  # (L,)
        ends = (ids == self.end_id) & (place >= self.start)  # (B, L)
        lost = ~ends.any(dim=1, keepdim=True) & (place == ids.shape[1] - 1)  # (B, L)
        ends = (ends | lost).int()
        behind = ends.cumsum(dim=1) > ends  # of the first end
        ids = ids.masked_fill(lost, self.end_id).masked_fill(behind, self.pad_id)
        if self.row_length is not None:
            padding = ids.new_full((ids.shape[0], self.row_length), self.pad_id)
            ids = torch.cat([ids, padding], dim=1)[:, : self.row_length]
        return super().forward(ids)  # (B, D)


class Pair(nn.Module):
    """Both towers and the logits of every image for every text."""

    inputs = ('pixel_values', 'input_ids')
    outputs = ('logits_per_image', 'logits_per_text', 'image_embeds', 'text_embeds')

    def __init__(self, image: Tower, text: Tower, scale: float, bias: float) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.scale = scale
        self.bias = bias

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits ``(I, T)``, the same ``(T, I)``, and embeddings ``(I, D)`` and ``(T, D)``."""
        image, text = self.image(pixels), self.text(ids)
        logits = self.scale * image @ text.T + self.bias  # (I, T)
        return logits, logits.T, image, text


def towers_of(model: nn.Module, tokenizer: BaseTokenizer | None = None) -> dict[str, nn.Module]:
    """``image``, and with a text tower ``text`` and ``both``, in eval mode.

    Inputs and outputs have the names of Hugging Face's CLIP.

    Args:
        model: Of mmslip, or an image tower alone.
        tokenizer: Of its texts, where it has a text tower.
    """
    options = getattr(model, 'whole_image', {})
    if not getattr(model, 'with_text', False):
        return dict(image=Tower(model.backbone, None, **options).eval())
    image = Tower(model.backbone, model.neck, **options)
    text = TextTower(model.text_backbone, model.text_neck, tokenizer)
    scale = model.head.logit_scale.exp().item()
    bias = model.head.logit_bias.item() if hasattr(model.head, 'logit_bias') else 0.0
    towers = dict(image=image, text=text, both=Pair(image, text, scale, bias))
    return {name: tower.eval() for name, tower in towers.items()}
