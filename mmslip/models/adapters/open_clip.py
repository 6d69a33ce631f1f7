"""Weights of OpenAI's CLIP and of open_clip."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmslip.models.adapters.facts import ACTIVATIONS, CLIP_PIXELS, Facts
from mmslip.models.adapters.family import Family, as_json, require
from mmslip.models.adapters.rules import (
    BATCHED,
    SCALAR,
    TOKEN,
    TRANSPOSED,
    Rule,
    clip_text_rules,
    timm_vit_rules,
)
from mmslip.models.adapters.timm_vit import describe_timm, find_timm

__all__ = ['OpenAICLIP', 'OpenCLIP']

_LAYER, _OURS = 'visual.transformer.resblocks.{i}', 'backbone.layers.{i}'
_IMAGE_RULES = (
    Rule('visual.class_embedding', 'backbone.cls_token', TOKEN),
    Rule('visual.positional_embedding', 'backbone.pos_embed', BATCHED),
    Rule('visual.conv1.{p}', 'backbone.patch_embed.projection.{p}'),
    Rule('visual.ln_pre.{p}', 'backbone.pre_norm.{p}'),
    Rule(f'{_LAYER}.ln_1.{{p}}', f'{_OURS}.ln1.{{p}}'),
    Rule(f'{_LAYER}.ln_2.{{p}}', f'{_OURS}.ln2.{{p}}'),
    Rule(f'{_LAYER}.attn.in_proj_{{p}}', f'{_OURS}.attn.qkv.{{p}}'),
    Rule(f'{_LAYER}.attn.out_proj.{{p}}', f'{_OURS}.attn.proj.{{p}}'),
    Rule(f'{_LAYER}.mlp.c_fc.{{p}}', f'{_OURS}.ffn.layers.0.0.{{p}}'),
    Rule(f'{_LAYER}.mlp.c_proj.{{p}}', f'{_OURS}.ffn.layers.1.{{p}}'),
    Rule('visual.ln_post.{p}', 'backbone.ln1.{p}'),
    Rule('visual.proj', 'neck.weight'),
)
# An image tower of timm within open_clip: SLIP's own, which has no norm in front of its layers.
_TRUNK_RULES = (
    *timm_vit_rules('visual.trunk.'),
    Rule('visual.head.proj.weight', 'neck.weight', TRANSPOSED),
)
_NATIVE = dict(eps=1e-5, pre_norm=True, patch_bias=False, qkv_bias=True)

# Settings that change no embedding, and the one value that mmslip has of each of the others.
_INERT = {'patch_dropout', 'output_tokens', 'pad_id', 'eos_id'}
_INERT |= {'timm_model_pretrained', 'timm_drop', 'timm_drop_path'}
_SIZES = {'layers', 'width', 'heads', 'patch_size', 'image_size', 'context_length', 'vocab_size'}
_SIZES |= {'head_width', 'mlp_ratio', 'timm_model_name', 'norm_kwargs'}
_ONLY = dict(pool_type=('tok', 'argmax'), proj_type=('linear',), pos_embed_type=('learnable',))
_ONLY.update(timm_pool=('token', ''), timm_proj=('linear',))


class OpenCLIP(Family):
    """open_clip (github.com/mlfoundations/open_clip): ViTs of its own and timm's as image tower.

    Its state dicts tell neither the activation nor the heads; ``open_clip_config.json`` does. Where
    there is none, ``activation`` has to be given and the model has to be a ViT-B or ViT-L, whose
    heads are 64 wide.
    """

    name = 'open_clip'
    title = 'open_clip'
    rules = (
        *_IMAGE_RULES,
        *_TRUNK_RULES,
        *clip_text_rules(),
        *clip_text_rules('text.'),
        Rule('logit_bias', 'head.logit_bias', SCALAR),  # of models trained with the sigmoid loss
    )
    no_embedding = (r'(.+\.)?attn_mask', r'input_resolution|context_length|vocab_size')
    weights_file = 'open_clip_model.safetensors'
    description_file = 'open_clip_config.json'

    def recognise(self, names: Collection[str]) -> bool:
        return _is_clip(names) and 'input_resolution' not in names

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        if description is not None:
            return self._described(weights, description)
        width, text_width = (
            weights[name].shape[-1]
            for name in ('backbone.cls_token', 'text_backbone.token_embedding.weight')
        )
        if activation not in ACTIVATIONS:
            raise ValueError(
                "open_clip's weights do not tell whether they were trained with QuickGELU or GELU: "
                'give --activation quick_gelu or gelu, or --config with their '
                'open_clip_config.json.'
            )
        if width not in (768, 1024) or text_width not in (512, 768):
            raise ValueError(
                f'The towers are {width} and {text_width} wide, as no ViT-B or ViT-L is, so their '
                'attention heads are not known: give --config with the open_clip_config.json.'
            )
        return _shaped(weights, width // 64, text_width // 64, activation, CLIP_PIXELS)

    def _described(self, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> Facts:
        model = description.get('model_cfg', description)
        vision, text = model['vision_cfg'], model['text_cfg']
        for name, part in (('vision_cfg', vision), ('text_cfg', text)):
            _refuse_unknown(name, part)
        pixels = description.get('preprocess_cfg', {})
        pixels = (pixels.get('mean', CLIP_PIXELS[0]), pixels.get('std', CLIP_PIXELS[1]))
        activation = 'quick_gelu' if model.get('quick_gelu') else 'gelu'
        if 'timm_model_name' in vision:
            if vision.get('timm_pool', 'avg') == 'avg':
                raise ValueError('open_clip models with the mean over patches have no counterpart.')
            return Facts.from_weights(
                weights,
                **describe_timm(vision['timm_model_name'], {}),
                text_heads=text['heads'],
                text_activation=activation,
                pixels=pixels,
            )
        heads = vision['width'] // vision.get('head_width', 64)
        return _shaped(weights, heads, text['heads'], activation, pixels)

    def check(self, facts: Facts) -> None:
        if facts.text is None:
            raise ValueError(f'{self.title} has no image tower alone: convert it for timm.')
        if facts.vision.pre_norm:
            require(self.title, facts.vision, activation=facts.text.activation, **_NATIVE)
        else:
            find_timm(facts.vision)

    def rules_for(self, facts: Facts) -> tuple[Rule, ...]:
        if facts.vision.pre_norm:
            return self.rules
        return tuple(rule for rule in self.rules if rule not in _IMAGE_RULES)

    def files(self, facts: Facts) -> dict[str, str]:
        vision, text = facts.vision, facts.text
        if vision.pre_norm:
            image = dict(
                image_size=vision.image_size,
                layers=vision.layers,
                width=vision.width,
                head_width=vision.width // vision.heads,
                mlp_ratio=vision.mlp_width / vision.width,
                patch_size=vision.patch_size,
            )
        else:
            image = dict(
                image_size=vision.image_size,
                timm_model_name=find_timm(vision),
                timm_model_pretrained=False,
                timm_pool='token',
                timm_proj='linear',
            )
        model = dict(
            embed_dim=facts.embed_dim,
            quick_gelu=text.activation == 'quick_gelu',
            vision_cfg=image,
            text_cfg=dict(
                context_length=text.context_length,
                vocab_size=text.vocab_size,
                width=text.width,
                heads=text.heads,
                layers=text.layers,
            ),
        )
        if facts.sigmoid:
            model['init_logit_bias'] = -10  # with which open_clip makes the parameter
        pixels = dict(mean=facts.pixels[0], std=facts.pixels[1], interpolation='bicubic')
        content = dict(model_cfg=model, preprocess_cfg=dict(pixels, resize_mode='shortest'))
        return {'open_clip_config.json': as_json(content)}


class OpenAICLIP(OpenCLIP):
    """OpenAI's CLIP (Radford et al., arXiv 2103.00020): ViTs, QuickGELU, heads 64 wide.

    Its files are recognised by three numbers that they hold beside the weights.
    """

    name = 'openai'
    title = "OpenAI's CLIP"
    weights_file = 'model.safetensors'
    description_file = None

    def recognise(self, names: Collection[str]) -> bool:
        return _is_clip(names) and 'input_resolution' in names

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        width = weights['backbone.cls_token'].shape[-1]
        text_width = weights['text_backbone.token_embedding.weight'].shape[-1]
        return _shaped(weights, width // 64, text_width // 64, 'quick_gelu', CLIP_PIXELS)

    def check(self, facts: Facts) -> None:
        super().check(facts)
        vision = dict(activation='quick_gelu', heads=facts.vision.width // 64, **_NATIVE)
        require(self.title, facts.vision, **vision, mlp_width=4 * facts.vision.width)
        require(self.title, facts.text, activation='quick_gelu', heads=facts.text.width // 64)

    def from_mmslip(
        self, weights: Mapping[str, Tensor], facts: Facts
    ) -> tuple[dict[str, Tensor], list[str]]:
        theirs, left_out = super().from_mmslip(weights, facts)
        numbers = dict(
            input_resolution=facts.vision.image_size,
            context_length=facts.text.context_length,
            vocab_size=facts.text.vocab_size,
        )
        return theirs | {name: torch.tensor(value) for name, value in numbers.items()}, left_out

    def files(self, facts: Facts) -> dict[str, str]:
        return {}


def _is_clip(names: Collection[str]) -> bool:
    image = 'visual.conv1.weight' in names or 'visual.trunk.cls_token' in names
    return image and bool({'token_embedding.weight', 'text.token_embedding.weight'} & set(names))


def _shaped(
    weights: Mapping[str, Tensor], heads: int, text_heads: int, activation: str, pixels: tuple
) -> Facts:
    return Facts.from_weights(
        weights,
        heads=heads,
        activation=activation,
        eps=1e-5,
        text_heads=text_heads,
        text_activation=activation,
        pixels=pixels,
    )


def _refuse_unknown(name: str, cfg: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a setting that mmslip's towers do not have."""
    for key, value in cfg.items():
        if key in _INERT or key in _SIZES or not value or value in _ONLY.get(key, ()):
            continue
        raise ValueError(f'open_clip models with {name}.{key} = {value!r} have no counterpart.')
    if cfg.get('norm_kwargs', {}).get('eps', 1e-5) != 1e-5:
        raise ValueError(f'{name}.norm_kwargs = {cfg["norm_kwargs"]!r} has no counterpart.')
