"""What a config says about the architecture of its model, read from the modules that it builds."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import VisionTransformer
from torch import nn

from mmslip.datasets.text.vocabulary import is_own
from mmslip.models.backbones import TextTransformer
from mmslip.models.necks import AttentionPooling, LinearProjection
from mmslip.models.widths import with_width
from mmslip.registry import MODELS
from mmslip.utils.parts import is_kind
from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.spec import ForeignText, ModelSpec, TextSpec, VisionSpec, as_lists

__all__ = ['block_of', 'spec_from_config']


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """Read a config of mmslip or mmpretrain: its ``model`` and its test pipeline.

    Raises:
        ValueError: Its towers are others than :class:`VisionSpec` and :class:`TextSpec`
            describe, or its test pipeline gives images of another size.
    """
    model = config['model']
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        _require_parts(model)
        backbone = MODELS.build({**model['backbone'], 'init_cfg': None})
        text = MODELS.build(model['text_backbone']) if model.get('text_backbone') else None
        neck = _build_neck(model['neck'], backbone) if text else None
    vision = _vision_of(backbone, neck)
    preprocessing, size = Preprocessing.from_config(config)
    if size not in (None, vision.image_size):
        raise ValueError(
            f'model.backbone is for images of {vision.image_size} pixels, the test pipeline '
            f'gives {size}: set both to the same size.'
        )
    spec = ModelSpec(vision, preprocessing=preprocessing)
    if text is None:
        return spec
    neck = model['text_neck']
    return replace(
        spec,
        text=_described(text, config),
        embed_dim=neck.get('out_channels'),
        sigmoid=is_kind(model['head'], 'SigLIPHead'),
        text_bias=neck.get('bias', False),
    )


def _activation_of(module: nn.Module) -> str:
    if type(module).__name__ == 'QuickGELU':
        return 'quick_gelu'
    if isinstance(module, nn.GELU):
        return 'gelu' if module.approximate == 'none' else 'gelu_tanh'
    raise ValueError(f'The activation {module} is neither GELU nor QuickGELU.')


def _require_parts(model: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for an image tower or a projection that no other library has."""
    names = ('neck', 'text_neck') if model.get('text_backbone') else ()
    with MODELS.switch_scope_and_registry(None) as registry:
        tower, *necks = (registry.get(model[name]['type']) for name in ('backbone', *names))
    if tower is None or not issubclass(tower, VisionTransformer):
        raise ValueError(
            f'model.backbone is a {model["backbone"]["type"]}: other libraries get ViTs alone, '
            'mmslip.VisionTransformer. ONNX has any: mmslip export.'
        )
    for name, neck in zip(names, necks, strict=True):
        if neck is not LinearProjection and not (name == 'neck' and neck is AttentionPooling):
            raise ValueError(
                f'model.{name} is a {model[name]["type"]}: other libraries have '
                'mmslip.LinearProjection alone. ONNX has any: mmslip export.'
            )


def _build_neck(cfg: Mapping[str, Any], backbone: nn.Module) -> nn.Module:
    return MODELS.build(with_width(dict(cfg), backbone.embed_dims, 'model.neck'))


def _vision_of(backbone: nn.Module, neck: nn.Module | None) -> VisionSpec:
    attention = isinstance(neck, AttentionPooling)
    # Of all tokens ('raw', MAE's), SLIP reads the class token, and attention pooling all of them.
    outputs = ('featmap', 'raw') if attention else ('cls_token', 'raw')
    plain = backbone.out_type in outputs and backbone.final_norm
    layer = backbone.layers[0]
    if (
        not plain
        or attention == backbone.with_cls_token
        or not hasattr(layer.ffn, 'layers')
        or hasattr(layer.attn.gamma1, 'weight')
    ):
        raise ValueError(
            'The image tower has layer scale, SwiGLU, no final norm or another output than its '
            'class token (with mmslip.AttentionPooling: its patches, without a class token); no '
            'library but mmpretrain has the same.'
        )
    arch = backbone.arch_settings
    if attention and _settings_of(neck.attention, neck.norm, neck.ffn) != block_of(layer):
        raise ValueError(
            'model.neck has other heads, another MLP, activation or eps than the layers of '
            'model.backbone; no library but mmpretrain has the same.'
        )
    return VisionSpec(
        width=arch['embed_dims'],
        layers=arch['num_layers'],
        heads=arch['num_heads'],
        mlp_width=arch['feedforward_channels'],
        patch_size=backbone.patch_embed.projection.kernel_size[0],
        image_size=backbone.img_size[0],
        activation=_activation_of(layer.ffn.layers[0][1]),
        eps=layer.ln1.eps,
        pre_norm=not isinstance(backbone.pre_norm, nn.Identity),
        patch_bias=backbone.patch_embed.projection.bias is not None,
        qkv_bias=layer.attn.qkv.bias is not None,
        pooling='attention' if attention else 'class_token',
    )


def block_of(layer: nn.Module) -> tuple[int, float, int, str]:
    """Heads, eps, width within the MLP and activation of a block of mmpretrain's ViT."""
    return _settings_of(layer.attn, layer.ln1, layer.ffn)


def _settings_of(attn: nn.Module, norm: nn.Module, ffn: nn.Module) -> tuple[int, float, int, str]:
    hidden, activation, *_ = ffn.layers[0]
    return attn.num_heads, norm.eps, hidden.out_features, _activation_of(activation)


def _described(tower: nn.Module, config: Mapping[str, Any]) -> TextSpec | ForeignText:
    """The text tower of a config, with its tokeniser."""
    found = [*_find_tokenizers({**config}), dict(type='mmslip.CLIPTokenizer')]
    stated = next(filter(_is_foreign, found), found[0])
    table = stated.get('merges_file')
    own = is_kind(stated, 'CLIPTokenizer') and bool(table) and is_own(table)
    clip = isinstance(tower, TextTransformer) and tower.end_id == 'highest'
    if clip and (own or not _is_foreign(stated)):
        return replace(_text_of(tower), merges_file=str(table) if own else None)
    cfg = dict(config['model']['text_backbone'])
    cfg = tower.plain_config() if hasattr(tower, 'plain_config') else cfg
    return ForeignText(as_lists(cfg), as_lists(dict(stated)))


def _is_foreign(tokenizer: Mapping) -> bool:
    """Whether a tokeniser is not CLIP's with merges of CLIP's table."""
    return not is_kind(tokenizer, 'CLIPTokenizer') or bool(tokenizer.get('merges_file'))


def _text_of(tower: TextTransformer) -> TextSpec:
    return TextSpec(
        vocab_size=tower.token_embedding.num_embeddings,
        context_length=tower.context_length,
        width=tower.width,
        layers=len(tower.layers),
        heads=tower.layers[0].num_heads,
        activation=_activation_of(tower.layers[0].act),
    )


def _find_tokenizers(config: Any) -> Iterator[Mapping]:
    if isinstance(config, Mapping):
        found = config.get('tokenizer')
        if isinstance(found, Mapping) and 'type' in found:
            yield found
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from _find_tokenizers(part)
