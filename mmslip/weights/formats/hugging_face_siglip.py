"""Weights of Hugging Face's ``SiglipModel``."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mmslip.registry import TOKENIZERS
from mmslip.utils.parts import is_kind
from mmslip.weights.format import Format, as_json, require
from mmslip.weights.formats.hugging_face import (
    CLASSIFY,
    NO_EMBEDDING,
    RESAMPLE,
    layer_rules,
    towers_of,
)
from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.rules import BATCHED, TRANSPOSED, Rule
from mmslip.weights.spec import ACT_CFGS, ForeignText, ModelSpec
from mmslip.weights.spec_from_config import block_of
from mmslip.weights.tokenizer import tokenizer_files

__all__ = ['HuggingFaceSigLIP']

_IMAGE, _TEXT, _POOL = 'vision_model.embeddings', 'text_model.embeddings', 'vision_model.head'
# Names of activations in transformers.
_ACTIVATIONS = dict(gelu_pytorch_tanh='gelu_tanh', gelu='gelu', quick_gelu='quick_gelu')
_THEIRS = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
_HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the pixels


class HuggingFaceSigLIP(Format):
    """``SiglipModel`` of transformers (Zhai et al., arXiv 2303.15343): SigLIP, and SigLIP 2 at one
    image size.

    Its image tower has no class token but attention pooling, and no projection; its text tower
    reads padding, and its tokeniser lies beside it, as ``tokenizer.json``.
    """

    name = 'hugging_face_siglip'
    title = "Hugging Face's SiglipModel"
    rules = (
        Rule('logit_scale', 'head.logit_scale'),
        Rule('logit_bias', 'head.logit_bias'),
        Rule('text_model.head.weight', 'text_neck.weight', TRANSPOSED),
        Rule('text_model.head.bias', 'text_neck.bias'),
        Rule(f'{_POOL}.probe', 'neck.probe'),
        Rule(f'{_POOL}.attention.{{rest}}', 'neck.attention.{rest}'),
        Rule(f'{_POOL}.layernorm.{{p}}', 'neck.norm.{p}'),
        Rule(f'{_POOL}.mlp.fc1.{{p}}', 'neck.ffn.layers.0.0.{p}'),
        Rule(f'{_POOL}.mlp.fc2.{{p}}', 'neck.ffn.layers.1.{p}'),
        Rule(f'{_IMAGE}.position_embedding.weight', 'backbone.pos_embed', BATCHED),
        Rule(f'{_IMAGE}.patch_embedding.{{p}}', 'backbone.patch_embed.projection.{p}'),
        Rule('vision_model.post_layernorm.{p}', 'backbone.ln1.{p}'),
        *layer_rules('vision_model', 'backbone', 'ffn.layers.0.0', 'ffn.layers.1', 'attn.'),
        Rule(f'{_TEXT}.token_embedding.weight', 'text_backbone.token_embedding.weight'),
        Rule(f'{_TEXT}.position_embedding.weight', 'text_backbone.pos_embed'),
        Rule('text_model.final_layer_norm.{p}', 'text_backbone.ln_final.{p}'),
        *layer_rules('text_model', 'text_backbone', 'ffn.layers.0.0', 'ffn.layers.1', 'attn.'),
    )
    description_file = 'config.json'
    needs_text = True
    library = 'transformers'
    usage = CLASSIFY
    no_embedding = NO_EMBEDDING
    ours_left_out = (r'ssl\..+',)

    def recognise(self, names: Collection[str]) -> bool:
        return f'{_POOL}.probe' in names and f'{_TEXT}.token_embedding.weight' in names

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        # Files leave out what is SigLIP ViT-B/16's.
        vision, text = towers_of(description)
        kind = description.get('model_type')
        if kind != 'siglip':  # siglip2's names are the same
            raise ValueError(
                f"model_type is {kind!r} in config.json; mmslip has the towers of 'siglip' alone, "
                'whose images have one size.'
            )
        images = {key: x for key, x in weights.items() if not key.startswith('text_backbone.')}
        spec = ModelSpec.from_weights(
            images,
            heads=vision.get('num_attention_heads', 12),
            activation=_activation_of(vision, 'vision_config'),
            eps=vision.get('layer_norm_eps', 1e-6),
        )
        vocab_size, width = weights['text_backbone.token_embedding.weight'].shape
        length = len(weights['text_backbone.pos_embed'])
        layers = [
            value
            for key, value in weights.items()
            if re.fullmatch(r'text_backbone\.layers\.\d+\.ffn\.layers\.0\.0\.bias', key)
        ]
        tower = dict(
            type='mmslip.SigLIPTextTransformer',
            vocab_size=vocab_size,
            context_length=length,
            width=width,
            num_layers=len(layers),
            num_heads=text.get('num_attention_heads', 12),
            feedforward_channels=len(layers[0]),
            act_cfg=ACT_CFGS[_activation_of(text, 'text_config')],
            norm_cfg=dict(type='LN', eps=text.get('layer_norm_eps', 1e-6)),
        )
        tokenizer = dict(
            type='mmslip.HuggingFaceTokenizer',
            path='tokenizer.json',
            context_length=length,
            padding_counts=True,
        )
        return replace(
            spec,
            text=ForeignText(tower, tokenizer),
            preprocessing=_read_preprocessor(
                description.get('preprocessor', {}), spec.vision.image_size
            ),
        )

    def check(self, spec: ModelSpec) -> None:
        text = spec.text
        if not isinstance(text, ForeignText) or not (
            is_kind(text.tower, 'SigLIPTextTransformer')
            and is_kind(text.tokenizer, 'HuggingFaceTokenizer')
        ):
            raise ValueError(
                f'{self.title} has mmslip.SigLIPTextTransformer with mmslip.HuggingFaceTokenizer '
                'for texts alone: choose another format.'
            )
        native = dict(pooling='attention', pre_norm=False, patch_bias=True, qkv_bias=True)
        require(self.title, spec.vision, **native)
        if not (spec.sigmoid and spec.text_bias and spec.embed_dim == spec.vision.width):
            raise ValueError(
                f'{self.title} has a bias in head and text projection, and embeddings as wide as '
                'its image tower: mmslip.SigLIPHead, and model.text_neck with bias=True and '
                f'out_channels={spec.vision.width}.'
            )
        images = dict(interpolation=set(RESAMPLE), backend='pillow', resize='squash', crop=1.0)
        require(self.title, spec.preprocessing, **images)

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        vision, tokenizer = spec.vision, TOKENIZERS.build(dict(spec.text.tokenizer))
        tower = spec.text.build()
        heads, eps, hidden, activation = block_of(tower.layers[0])
        content = dict(
            architectures=['SiglipModel'],
            model_type='siglip',
            vision_config=dict(
                hidden_size=vision.width,
                intermediate_size=vision.mlp_width,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                hidden_act=_THEIRS[vision.activation],
                layer_norm_eps=vision.eps,
            ),
            text_config=dict(
                vocab_size=tower.vocab_size,
                hidden_size=tower.width,
                intermediate_size=hidden,
                num_hidden_layers=len(tower.layers),
                num_attention_heads=heads,
                max_position_embeddings=tower.context_length,
                projection_size=spec.embed_dim,
                hidden_act=_THEIRS[activation],
                layer_norm_eps=eps,
                bos_token_id=tokenizer.start_id,
                eos_token_id=tokenizer.end_id,
                pad_token_id=tokenizer.pad_id,
            ),
        )
        images, side = spec.preprocessing, vision.image_size
        preprocessor = dict(
            image_processor_type='SiglipImageProcessor',
            do_resize=True,
            size=dict(height=side, width=side),
            resample=RESAMPLE[images.interpolation],
            do_normalize=True,
            image_mean=images.mean,
            image_std=images.std,
            do_convert_rgb=True,
        )
        return {
            'config.json': as_json(content),
            'preprocessor_config.json': as_json(preprocessor),
            **tokenizer_files(tokenizer),
        }


def _activation_of(cfg: Mapping[str, Any], name: str) -> str:
    """Our name of the activation of a tower."""
    found = cfg.get('hidden_act', 'gelu_pytorch_tanh')
    if found not in _ACTIVATIONS:
        raise ValueError(
            f'{name}.hidden_act is {found!r}, which is none of {", ".join(_ACTIVATIONS)}.'
        )
    return _ACTIVATIONS[found]


def _read_preprocessor(content: Mapping[str, Any], side: int) -> Preprocessing:
    """The settings of ``preprocessor_config.json``; SigLIP's where it is silent."""
    size = content.get('size', dict(height=side, width=side))
    if size != dict(height=side, width=side) or content.get('do_center_crop'):
        raise ValueError(
            f'preprocessor_config.json has size {size!r} and do_center_crop '
            f'{content.get("do_center_crop", False)}, which makes no images of {side} x {side} '
            'pixels, those of the model, by resizing alone.'
        )
    names = {number: name for name, number in RESAMPLE.items()}
    resample = content.get('resample', RESAMPLE['bicubic'])
    return Preprocessing(
        mean=content.get('image_mean', _HALF),
        std=content.get('image_std', _HALF),
        interpolation=names.get(resample, f'resample={resample}'),
        resize='squash',
    )
