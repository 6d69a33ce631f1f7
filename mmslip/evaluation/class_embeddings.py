"""Class names as points of the joint space."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ['embed_classes']


@torch.no_grad()
def embed_classes(
    model: nn.Module,
    classes: Sequence[str],
    templates: Sequence[str],
    tokenizer: Callable[[Sequence[str]], Tensor],
    batch_size: int = 256,
) -> Tensor:
    """Embed class names as the mean of their prompts (Radford et al., arXiv 2103.00020, 3.1.4).

    Each prompt's embedding is normalised, then averaged over templates, then normalised again.

    Args:
        model: Has ``encode_text`` and is in eval mode.
        classes: ``K`` class names.
        templates: Prompts with ``{}`` for the name.
        tokenizer: Maps a list of strings to ids ``(N, L)``.
        batch_size: Prompts in one pass.

    Returns:
        ``(K, D)``, unit rows, float32, on the model's device.
    """
    device = next(model.parameters()).device
    prompts = [template.format(name) for name in classes for template in templates]
    chunks = []
    for start in range(0, len(prompts), batch_size):
        text = tokenizer(prompts[start : start + batch_size])  # (N, L)
        # Nothing behind the last end-of-text token can reach a feature.
        text = text[:, : int(text.argmax(dim=-1).max()) + 1].to(device)
        chunks.append(F.normalize(model.encode_text(text).float(), dim=-1))  # (N, D)
    embeddings = torch.cat(chunks).view(len(classes), len(templates), -1)  # (K, T, D)
    return F.normalize(embeddings.mean(dim=1), dim=-1)  # (K, D)
