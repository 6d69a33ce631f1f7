"""What weights say of the model that they were trained in, beside what a model is."""

import math
from collections.abc import Iterator
from typing import Any

from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from mmslip.models.backbones import SigLIPTextTransformer, TextTransformer
from mmslip.models.necks import AttentionPooling
from mmslip.weights.spec import ForeignText, ModelSpec, TextSpec
from mmslip.weights.spec_from_config import block_of

__all__ = ['require_stated']

_ACTIVATIONS = dict(gelu='GELU', quick_gelu='QuickGELU', gelu_tanh='GELU (tanh)')


def require_stated(spec: ModelSpec, model: nn.Module, source: str) -> None:
    """Refuse a model with other settings than weights had in training: it would run, and badly.

    Compared are those that shapes of weights do not show: activations, attention heads and eps of
    the towers, mean and standard deviation of the pixels.

    Args:
        spec: What the weights say of themselves.
        model: That takes them, or its image tower alone.
        source: Of the weights, for the message.

    Raises:
        ValueError: The message names each setting with both of its values.
    """
    wrong = [
        f'{key} is {_text(found)}, of the weights {_text(wanted)}'
        for key, found, wanted in _settings(spec, model)
        if not _same(found, wanted)
    ]
    if wrong:
        raise ValueError(
            f'{source} was trained with other settings than the config has: {"; ".join(wrong)}. '
            'Set them as those of the weights: `mmslip init NAME --data DATA --from '
            f'{source}` writes such a config, `mmslip convert {source} FOLDER` its model alone.'
        )


def _settings(spec: ModelSpec, model: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Keys of a config with the value of the model and that of the weights."""
    tower, text = getattr(model, 'backbone', model), getattr(model, 'text_backbone', None)
    neck = getattr(model, 'neck', None)
    wanted = spec.vision.activation, spec.vision.heads, spec.vision.eps
    if isinstance(tower, VisionTransformer) and hasattr(tower.layers[0].ffn, 'layers'):
        keys = 'layer_cfgs.act_cfg', 'arch.num_heads', 'norm_cfg.eps'
        yield from _of_block('model.backbone', keys, _parts(tower.layers[0]), wanted)
    keys = 'act_cfg', 'num_heads', 'norm_cfg.eps'
    if isinstance(neck, AttentionPooling):
        yield from _of_block('model.neck', keys, (neck.ffn, neck.attention, neck.norm), wanted)
    if isinstance(text, SigLIPTextTransformer) and isinstance(spec.text, ForeignText):
        heads, eps, _, activation = block_of(spec.text.build().layers[0])
        wanted = activation, heads, eps
        yield from _of_block('model.text_backbone', keys, _parts(text.layers[0]), wanted)
    if isinstance(text, TextTransformer) and isinstance(spec.text, TextSpec):
        layer = text.layers[0]
        activation = _ACTIVATIONS[spec.text.activation]
        yield 'the activation (model.text_backbone.quick_gelu)', _name(layer.act), activation
        yield 'model.text_backbone.num_heads', layer.num_heads, spec.text.heads
    pixels = getattr(model, 'data_preprocessor', None)
    for name, wanted in spec.preprocessing.pixels_255().items():
        if isinstance(found := getattr(pixels, name, None), Tensor):
            yield f'model.data_preprocessor.{name}', found.flatten().tolist(), wanted


def _parts(layer: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    return layer.ffn, layer.attn, layer.ln1


def _of_block(
    path: str, keys: tuple[str, ...], parts: tuple[nn.Module, ...], wanted: tuple
) -> Iterator[tuple[str, Any, Any]]:
    """Activation, heads and eps of a block of attention and MLP."""
    ffn, attn, norm = parts
    activation, *numbers = wanted
    found = _name(ffn.layers[0][1]), attn.num_heads, norm.eps
    for key, *values in zip(keys, found, (_ACTIVATIONS[activation], *numbers), strict=True):
        yield f'{path}.{key}', *values


def _name(activation: nn.Module) -> str:
    approximate = getattr(activation, 'approximate', 'none')
    return type(activation).__name__ + ('' if approximate == 'none' else f' ({approximate})')


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, list):
        return all(map(_same, found, wanted))
    # Means are written rounded, and eps may be that of another precision.
    return found == wanted if isinstance(found, str) else math.isclose(found, wanted, rel_tol=1e-3)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f'[{", ".join(f"{number:.4g}" for number in value)}]'
    return str(value)
