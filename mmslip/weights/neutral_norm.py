"""SLIP's image tower in libraries whose ViT has a norm in front of its layers.

LayerNorm divides a token by ``sqrt(variance + eps)``. Of a token whose variance is far below eps it
is a multiplication, the same for every token, so that a gain undoes it:

- What is added up to a token (patches, positions, class token) is divided by ``2 ** shift``.
- All that the layers add to a token is multiplied by ``SCALE``, and eps by its square: the other
  norms see tokens ``SCALE`` times as large, which changes nothing. It lifts the small numbers into
  the range of half floats.
- The gain of the norm in front makes good for both, and its bias adds that of the patches, which
  such a ViT does not have. The class token has no patch: its position takes the bias off again.

The mean, which the norm takes away, is one that every later norm takes away as well. All factors
are powers of two, so everything but the position of the class token is there bit for bit; that one
is kept beside it, see :func:`class_position`.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mmslip.weights.spec import ModelSpec

__all__ = [
    'add_neutral_norm',
    'class_position',
    'remove_neutral_norm',
    'with_neutral_norm',
]

SCALE = 64
# Relative change of the tokens of the loudest possible image by the neutral norm. Those of a usual
# one change by a tenth of it or less, and cosines of embeddings by about its square. Half floats
# have no room for much less.
_TOLERANCE = 2**-10

_POSITIONS, _PATCHES = 'backbone.pos_embed', 'backbone.patch_embed.projection'
_EMBEDDINGS = ('backbone.cls_token', _POSITIONS, f'{_PATCHES}.weight')
_BRANCHES = ('attn.proj', 'ffn.layers.1')  # whose results are added to the tokens


def with_neutral_norm(spec: ModelSpec) -> ModelSpec:
    """The architecture of :func:`add_neutral_norm`."""
    eps = spec.vision.eps * SCALE**2
    vision = replace(spec.vision, pre_norm=True, patch_bias=False, eps=eps)
    return replace(spec, vision=vision)


def add_neutral_norm(weights: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Weights of the same model with a norm in front of its layers.

    Args:
        weights: Under mmslip's names, of a ViT without such a norm. Half floats become floats.
        spec: Their architecture.
    """
    weights = {name: value.float() for name, value in weights.items()}
    bias = weights.pop(f'{_PATCHES}.bias', torch.zeros(spec.vision.width))  # (C,)
    gain = math.sqrt(spec.vision.eps) * SCALE**2
    shift = _shift(weights, spec.vision.eps)
    positions = weights[_POSITIONS].clone()  # (1, N, C)
    positions[:, 0] -= bias
    weights[_POSITIONS] = positions
    weights = _multiply(weights, 2.0**-shift, float(SCALE))
    weights['backbone.pre_norm.weight'] = torch.full_like(bias, gain * 2**shift)
    weights['backbone.pre_norm.bias'] = bias * SCALE
    return weights


def class_position(weights: Mapping[str, Tensor]) -> str:
    """The position of the class token of :func:`add_neutral_norm`'s argument, in base64."""
    values = weights[_POSITIONS][0, 0].float().cpu()
    return base64.b64encode(values.numpy().astype('<f4').tobytes()).decode('ascii')


def remove_neutral_norm(
    weights: Mapping[str, Tensor], spec: ModelSpec, position: str
) -> tuple[dict[str, Tensor], ModelSpec] | None:
    """The arguments of :func:`add_neutral_norm`, bit for bit.

    Args:
        weights: Its result.
        spec: Its architecture.
        position: Of :func:`class_position`.

    Returns:
        Weights and architecture; ``None`` if the weights were changed since, by training.
    """
    weights = dict(weights)
    gain = weights.pop('backbone.pre_norm.weight')
    bias = weights.pop('backbone.pre_norm.bias') / SCALE
    eps = spec.vision.eps / SCALE**2
    unshifted = math.sqrt(eps) * SCALE**2
    shift = round(math.log2(max(gain[0].item(), 1e-30) / unshifted))
    weights = _multiply(weights, 2.0**shift, 1 / SCALE)
    row = torch.frombuffer(bytearray(base64.b64decode(position)), dtype=torch.float32)
    positions = weights[_POSITIONS].clone()
    if (
        not torch.equal(gain, torch.full_like(gain, unshifted * 2**shift))
        or row.shape != bias.shape
        or not torch.equal(row - bias, positions[0, 0])
    ):
        return None
    positions[0, 0] = row
    weights[_POSITIONS] = positions
    weights[f'{_PATCHES}.bias'] = bias
    vision = replace(spec.vision, pre_norm=False, patch_bias=True, eps=eps)
    return weights, replace(spec, vision=vision)


def _shift(weights: Mapping[str, Tensor], eps: float) -> int:
    """So small that the norm changes a token by the tolerance, in the worst direction of a patch.

    Pixels are taken to have a variance of one, as they have after normalisation.
    """
    kernel = weights[f'{_PATCHES}.weight'].flatten(1)  # (C, pixels)
    channels, pixels = kernel.shape
    patches = torch.linalg.matrix_norm(kernel, 2).item() ** 2 * pixels / channels
    variance = patches + weights[_POSITIONS].var(-1).max().item()
    return max(0, math.ceil(math.log2(variance / (2 * eps * SCALE**2 * _TOLERANCE)) / 2))


def _multiply(
    weights: Mapping[str, Tensor], embeddings: float, branches: float
) -> dict[str, Tensor]:
    """Multiply what makes up a token, and what the layers of the image tower add to it."""
    result = dict(weights)
    for name, value in weights.items():
        if name in _EMBEDDINGS:
            result[name] = value * embeddings
        elif name.startswith('backbone.layers.') and name.rpartition('.')[0].endswith(_BRANCHES):
            result[name] = value * branches
    return result
