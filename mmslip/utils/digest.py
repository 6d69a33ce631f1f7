"""Digests that identify a model's weights, and lists of texts."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import nn

__all__ = ['digest_of', 'digest_of_texts', 'spread']

_SPREAD = 256


def digest_of(*modules: nn.Module) -> 'hashlib._Hash':
    """SHA-256 of the structure and the weights of modules, open for more to be added."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())  # activation, heads: what weights do not tell
        for name, value in module.state_dict().items():
            digest.update(name.encode())
            # As a row first: one number alone cannot be seen as bytes.
            digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest


def spread(values: Sequence) -> list:
    """Some of them, at most 256, the first and the last included; all if they are few."""
    last = len(values) - 1
    places = {number * last // (_SPREAD - 1) for number in range(_SPREAD)}
    return [values[place] for place in sorted(places)] if values else []


def digest_of_texts(texts: Iterable[str]) -> str:
    """Twelve digits that tell one list of texts from another."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f'{len(text)} {text}'.encode(errors='surrogatepass'))
    return digest.hexdigest()[:12]
