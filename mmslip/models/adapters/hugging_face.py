"""Weights of Hugging Face's ``CLIPModel``."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmslip.models.adapters.facts import CLIP_PIXELS, Facts
from mmslip.models.adapters.family import Family, as_json, require
from mmslip.models.adapters.rules import BATCHED, SCALAR, TOKEN, TRANSPOSED, Rule

__all__ = ['HuggingFaceCLIP']


def _layer_rules(theirs: str, ours: str, fc1: str, fc2: str, attn: str) -> list[Rule]:
    theirs, ours = f'{theirs}.encoder.layers.{{i}}', f'{ours}.layers.{{i}}'
    return [
        Rule(
            f'{theirs}.self_attn.{{part}}_proj.{{p}}',
            f'{ours}.{attn}qkv.{{p}}',
            parts=('q', 'k', 'v'),
        ),
        Rule(f'{theirs}.self_attn.out_proj.{{p}}', f'{ours}.{attn}proj.{{p}}'),
        Rule(f'{theirs}.layer_norm1.{{p}}', f'{ours}.ln1.{{p}}'),
        Rule(f'{theirs}.layer_norm2.{{p}}', f'{ours}.ln2.{{p}}'),
        Rule(f'{theirs}.mlp.fc1.{{p}}', f'{ours}.{fc1}.{{p}}'),
        Rule(f'{theirs}.mlp.fc2.{{p}}', f'{ours}.{fc2}.{{p}}'),
    ]


_IMAGE, _TEXT = 'vision_model.embeddings', 'text_model.embeddings'


class HuggingFaceCLIP(Family):
    """``CLIPModel`` of transformers, as a folder with ``config.json``."""

    name = 'hugging_face'
    title = "Hugging Face's CLIPModel"
    rules = (
        Rule('logit_scale', 'head.logit_scale', SCALAR),
        Rule('visual_projection.weight', 'neck.weight', TRANSPOSED),
        Rule('text_projection.weight', 'text_neck.weight', TRANSPOSED),
        Rule(f'{_IMAGE}.class_embedding', 'backbone.cls_token', TOKEN),
        Rule(f'{_IMAGE}.position_embedding.weight', 'backbone.pos_embed', BATCHED),
        Rule(f'{_IMAGE}.patch_embedding.{{p}}', 'backbone.patch_embed.projection.{p}'),
        Rule('vision_model.pre_layrnorm.{p}', 'backbone.pre_norm.{p}'),  # sic
        Rule('vision_model.post_layernorm.{p}', 'backbone.ln1.{p}'),
        *_layer_rules('vision_model', 'backbone', 'ffn.layers.0.0', 'ffn.layers.1', 'attn.'),
        Rule(f'{_TEXT}.token_embedding.weight', 'text_backbone.token_embedding.weight'),
        Rule(f'{_TEXT}.position_embedding.weight', 'text_backbone.pos_embed'),
        Rule('text_model.final_layer_norm.{p}', 'text_backbone.ln_final.{p}'),
        *_layer_rules('text_model', 'text_backbone', 'fc1', 'fc2', ''),
    )
    description_file = 'config.json'
    no_embedding = (r'(vision|text)_model\.embeddings\.position_ids',)

    def recognise(self, names: Collection[str]) -> bool:
        return f'{_IMAGE}.class_embedding' in names and f'{_TEXT}.token_embedding.weight' in names

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        if description is None:
            raise ValueError(
                'Heads and activation stand in the config.json of the folder, which is not there: '
                'give it with --config.'
            )
        # Older files leave out what is CLIP ViT-B/32's.
        vision, text = description.get('vision_config', {}), description.get('text_config', {})
        eps = vision.get('layer_norm_eps', 1e-5)
        vocab_size = weights['text_backbone.token_embedding.weight'].shape[0]
        # 2 stands for "the highest id of the caption" in transformers.
        if text.get('eos_token_id', vocab_size - 1) not in (2, vocab_size - 1):
            raise ValueError(
                f'The end-of-text token is {text["eos_token_id"]}; mmslip reads a caption at its '
                f'highest id, which has to be {vocab_size - 1}.'
            )
        if text.get('layer_norm_eps', 1e-5) != 1e-5:
            raise ValueError('mmslip has 1e-5 for layer_norm_eps of the text tower alone.')
        pixels = description.get('preprocessor', {})
        return Facts.from_weights(
            weights,
            heads=vision.get('num_attention_heads', 12),
            activation=vision.get('hidden_act', 'quick_gelu'),
            eps=eps,
            text_heads=text.get('num_attention_heads', 8),
            text_activation=text.get('hidden_act', 'quick_gelu'),
            pixels=(
                pixels.get('image_mean', CLIP_PIXELS[0]),
                pixels.get('image_std', CLIP_PIXELS[1]),
            ),
        )

    def check(self, facts: Facts) -> None:
        if facts.text is None:
            raise ValueError(f'{self.title} has no image tower alone: convert it for timm.')
        require(self.title, facts.vision, pre_norm=True, patch_bias=False, qkv_bias=True)

    def files(self, facts: Facts) -> dict[str, str]:
        vision, text = facts.vision, facts.text
        end = text.vocab_size - 1
        content = dict(
            architectures=['CLIPModel'],
            model_type='clip',
            projection_dim=facts.embed_dim,
            vision_config=dict(
                hidden_size=vision.width,
                intermediate_size=vision.mlp_width,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                hidden_act=vision.activation,
                layer_norm_eps=vision.eps,
                projection_dim=facts.embed_dim,
            ),
            text_config=dict(
                vocab_size=text.vocab_size,
                hidden_size=text.width,
                intermediate_size=4 * text.width,
                num_hidden_layers=text.layers,
                num_attention_heads=text.heads,
                max_position_embeddings=text.context_length,
                hidden_act=text.activation,
                layer_norm_eps=1e-5,
                projection_dim=facts.embed_dim,
                bos_token_id=end - 1,
                eos_token_id=end,
            ),
        )
        side = vision.image_size
        pixels = dict(
            image_processor_type='CLIPImageProcessor',
            do_resize=True,
            size=dict(shortest_edge=side),
            resample=3,  # bicubic
            do_center_crop=True,
            crop_size=dict(height=side, width=side),
            do_normalize=True,
            image_mean=facts.pixels[0],
            image_std=facts.pixels[1],
            do_convert_rgb=True,
        )
        return {'config.json': as_json(content), 'preprocessor_config.json': as_json(pixels)}
