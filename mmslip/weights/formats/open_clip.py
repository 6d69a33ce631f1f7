"""Weights of OpenAI's CLIP and of open_clip."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from mmslip.weights.format import Format, as_json, require, require_clip
from mmslip.weights.formats.timm import describe_timm, find_timm
from mmslip.weights.neutral_norm import with_neutral_norm
from mmslip.weights.preprocessing import CLIP_PIXELS, Preprocessing
from mmslip.weights.rules import (
    BATCHED,
    SCALAR,
    TOKEN,
    TRANSPOSED,
    Rule,
    clip_text_rules,
    timm_vit_rules,
)
from mmslip.weights.spec import ACTIVATIONS, ModelSpec
from mmslip.weights.tokenizer import tokenizer_files, tokenizer_of

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
# How OpenAI's code prepares images, and open_clip unless its description says otherwise.
_CLIP_IMAGES = Preprocessing(**CLIP_PIXELS, interpolation='bicubic')
_NATIVE = dict(eps=1e-5, pre_norm=True, patch_bias=False, qkv_bias=True)

_VOCAB_SIZE = 49408
_OWN_TOKENIZER = '.'  # the files beside the weights

# Settings that change no embedding, and the one value that mmslip has of each of the others.
_INERT = {'patch_dropout', 'output_tokens', 'pad_id', 'eos_id'}
_INERT |= {'timm_model_pretrained', 'timm_drop', 'timm_drop_path'}
_SIZES = {'layers', 'width', 'heads', 'patch_size', 'image_size', 'context_length', 'vocab_size'}
_SIZES |= {'head_width', 'mlp_ratio', 'timm_model_name', 'norm_kwargs'}
_ONLY = dict(pool_type=('tok', 'argmax'), proj_type=('linear',), pos_embed_type=('learnable',))
_ONLY.update(hf_tokenizer_name=(_OWN_TOKENIZER,))
_ONLY.update(timm_pool=('token', ''), timm_proj=('linear',))


class OpenCLIP(Format):
    """open_clip (github.com/mlfoundations/open_clip): ViTs of its own and timm's as image tower.

    Its state dicts hold neither the activation nor the heads; ``open_clip_config.json`` does. Where
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
    rounding = 'even'
    needs_text = True
    library = 'open_clip'
    usage = """import open_clip

model, _, preprocess = open_clip.create_model_and_transforms('local-dir:{folder}')
tokenizer = open_clip.get_tokenizer('local-dir:{folder}')"""

    def recognise(self, names: Collection[str]) -> bool:
        return _is_clip(names) and 'input_resolution' not in names

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        if description is not None:
            return self._described(weights, description)
        width, text_width = (
            weights[name].shape[-1]
            for name in ('backbone.cls_token', 'text_backbone.token_embedding.weight')
        )
        if activation not in ACTIVATIONS:
            raise ValueError(
                "open_clip's weights do not say whether they were trained with QuickGELU or GELU: "
                'give --activation quick_gelu or gelu, or --config with their '
                'open_clip_config.json.'
            )
        if width not in (768, 1024) or text_width not in (512, 768):
            raise ValueError(
                f'The towers are {width} and {text_width} wide, as no ViT-B or ViT-L is, so their '
                'attention heads are not known: give --config with the open_clip_config.json.'
            )
        return _shaped(weights, width // 64, text_width // 64, activation, _CLIP_IMAGES)

    def _described(
        self, weights: Mapping[str, Tensor], description: Mapping[str, Any]
    ) -> ModelSpec:
        model = description.get('model_cfg', description)
        vision, text = model['vision_cfg'], model['text_cfg']
        for name, part in (('vision_cfg', vision), ('text_cfg', text)):
            _refuse_unknown(name, part)
        found = description.get('preprocess_cfg', {})
        settings = {key: found[key] for key in ('mean', 'std', 'interpolation') if key in found}
        if 'resize_mode' in found:
            settings['resize'] = found['resize_mode']
        images = replace(_CLIP_IMAGES, **settings)
        activation = 'quick_gelu' if model.get('quick_gelu') else 'gelu'
        if 'timm_model_name' in vision:
            if vision.get('timm_pool', 'avg') == 'avg':
                raise ValueError('open_clip models with the mean over patches have no counterpart.')
            return ModelSpec.from_weights(
                weights,
                **describe_timm(vision['timm_model_name'], {}),
                text_heads=text['heads'],
                text_activation=activation,
                preprocessing=images,
            )
        heads = vision['width'] // vision.get('head_width', 64)
        eps = vision.get('norm_kwargs', {}).get('eps', 1e-5)
        return _shaped(weights, heads, text['heads'], activation, images, eps)

    def counterpart(self, spec: ModelSpec) -> ModelSpec:
        same = spec.vision.activation == getattr(spec.text, 'activation', None)
        if spec.vision.pre_norm or find_timm(spec.vision) or not same:
            return spec
        return with_neutral_norm(spec)

    def check(self, spec: ModelSpec) -> None:
        if spec.text is None:
            raise ValueError(f'{self.title} has no image tower alone: convert it for timm.')
        tokenizer_of(spec.text)
        require_clip(self.title, spec)
        if spec.vision.pre_norm:
            native = dict(activation=spec.text.activation, patch_bias=False, qkv_bias=True)
            require(self.title, spec.vision, **native)
        elif not find_timm(spec.vision):
            quick = spec.vision.activation == 'quick_gelu'
            raise ValueError(
                f'{self.title} has one activation for both towers of its own; this model has '
                f'{spec.vision.activation} for images and {spec.text.activation} for texts, and '
                f'timm has no ViT like its image tower under a name: set '
                f'model.text_backbone.quick_gelu={quick} before training, or take the image tower '
                "arch='base' or 'large' at 224 pixels."
            )
        images = dict(interpolation={'bilinear', 'bicubic'}, backend='pillow', crop=1.0)
        require(self.title, spec.preprocessing, **images)

    def rules_for(self, spec: ModelSpec) -> tuple[Rule, ...]:
        if spec.vision.pre_norm:
            return self.rules
        return tuple(rule for rule in self.rules if rule not in _IMAGE_RULES)

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        vision, text = spec.vision, spec.text
        if vision.pre_norm:
            image = dict(
                image_size=vision.image_size,
                layers=vision.layers,
                width=vision.width,
                head_width=vision.width // vision.heads,
                mlp_ratio=vision.mlp_width / vision.width,
                patch_size=vision.patch_size,
                norm_kwargs=dict(eps=vision.eps),
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
            embed_dim=spec.embed_dim,
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
        tokenizer = tokenizer_of(text)
        files = {}
        if tokenizer.vocab_size != _VOCAB_SIZE:  # of the tokeniser that open_clip has built in
            model['text_cfg']['hf_tokenizer_name'] = _OWN_TOKENIZER
            files = tokenizer_files(tokenizer)
        if spec.sigmoid:
            model['init_logit_bias'] = -10  # with which open_clip makes the parameter
        images = spec.preprocessing
        preprocess = dict(
            size=vision.image_size,
            mean=images.mean,
            std=images.std,
            interpolation=images.interpolation,
            resize_mode=images.resize,
        )
        content = dict(model_cfg=model, preprocess_cfg=preprocess)
        return {'open_clip_config.json': as_json(content), **files}


class OpenAICLIP(OpenCLIP):
    """OpenAI's CLIP (Radford et al., arXiv 2103.00020): ViTs, QuickGELU, heads 64 wide.

    Its files are recognised by three numbers that they hold beside the weights.
    """

    name = 'openai'
    title = "OpenAI's CLIP"
    weights_file = 'model.safetensors'
    description_file = None
    usage = None

    def recognise(self, names: Collection[str]) -> bool:
        return _is_clip(names) and 'input_resolution' in names

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        width = weights['backbone.cls_token'].shape[-1]
        text_width = weights['text_backbone.token_embedding.weight'].shape[-1]
        return _shaped(weights, width // 64, text_width // 64, 'quick_gelu', _CLIP_IMAGES)

    def counterpart(self, spec: ModelSpec) -> ModelSpec:
        return spec  # eps is fixed

    def check(self, spec: ModelSpec) -> None:
        vision = dict(activation='quick_gelu', heads=spec.vision.width // 64, **_NATIVE)
        require(self.title, spec.vision, **vision, mlp_width=4 * spec.vision.width)
        super().check(spec)
        require(self.title, spec.text, activation='quick_gelu', heads=spec.text.width // 64)
        require(self.title, spec.preprocessing.rounded('even'), **asdict(_CLIP_IMAGES))

    def from_mmslip(
        self, weights: Mapping[str, Tensor], spec: ModelSpec
    ) -> tuple[dict[str, Tensor], list[str]]:
        theirs, left_out = super().from_mmslip(weights, spec)
        numbers = dict(
            input_resolution=spec.vision.image_size,
            context_length=spec.text.context_length,
            vocab_size=spec.text.vocab_size,
        )
        return theirs | {name: torch.tensor(value) for name, value in numbers.items()}, left_out

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        return {}


def _is_clip(names: Collection[str]) -> bool:
    image = 'visual.conv1.weight' in names or 'visual.trunk.cls_token' in names
    return image and bool({'token_embedding.weight', 'text.token_embedding.weight'} & set(names))


def _shaped(
    weights: Mapping[str, Tensor],
    heads: int,
    text_heads: int,
    activation: str,
    preprocessing: Preprocessing,
    eps: float = 1e-5,
) -> ModelSpec:
    return ModelSpec.from_weights(
        weights,
        heads=heads,
        activation=activation,
        eps=eps,
        text_heads=text_heads,
        text_activation=activation,
        preprocessing=preprocessing,
    )


def _refuse_unknown(name: str, cfg: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a setting that mmslip's towers do not have."""
    for key, value in cfg.items():
        if key in _INERT or key in _SIZES or not value or value in _ONLY.get(key, ()):
            continue
        raise ValueError(f'open_clip models with {name}.{key} = {value!r} have no counterpart.')
    if name == 'text_cfg' and cfg.get('norm_kwargs', {}).get('eps', 1e-5) != 1e-5:
        raise ValueError(f'{name}.norm_kwargs = {cfg["norm_kwargs"]!r} has no counterpart.')
