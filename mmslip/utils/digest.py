"""Digests that identify a model's weights."""

import hashlib

import torch
from torch import nn

__all__ = ['digest_of']


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
