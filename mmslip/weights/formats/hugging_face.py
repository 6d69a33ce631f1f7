"""Weights of Hugging Face's ``CLIPModel``."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmslip.weights.format import Format, as_json, require, require_clip
from mmslip.weights.neutral_norm import with_neutral_norm
from mmslip.weights.preprocessing import CLIP_PIXELS, Preprocessing
from mmslip.weights.rules import BATCHED, SCALAR, TOKEN, TRANSPOSED, Rule
from mmslip.weights.spec import ACTIVATIONS, ModelSpec
from mmslip.weights.tokenizer import tokenizer_files, tokenizer_of

__all__ = [
    'CLASSIFY',
    'NO_EMBEDDING',
    'RESAMPLE',
    'HuggingFaceCLIP',
    'image_processor',
    'layer_rules',
    'towers_of',
]

CLASSIFY = """from transformers import pipeline

classify = pipeline('zero-shot-image-classification', model='{folder}')
classify('image.jpg', candidate_labels=['cat', 'dog'])"""
# Buffers that older files hold.
NO_EMBEDDING = (r'(vision|text)_model\.embeddings\.position_ids',)


def layer_rules(theirs: str, ours: str, fc1: str, fc2: str, attn: str) -> list[Rule]:
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


# Numbers of Pillow's filters; the image processor of transformers refuses its box filter (4).
RESAMPLE = dict(nearest=0, lanczos=1, bilinear=2, bicubic=3)
_IMAGE, _TEXT = 'vision_model.embeddings', 'text_model.embeddings'


def towers_of(description: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``config.json`` says of image and text tower."""
    if description is None:
        raise ValueError(
            'Heads and activation stand in the config.json of the folder, which is not there: '
            'give it with --config.'
        )
    return description.get('vision_config', {}), description.get('text_config', {})


class HuggingFaceCLIP(Format):
    """``CLIPModel`` of transformers: a folder with config, tokeniser and image processor.

    Its image tower has a norm in front of its layers, which is neutral for SLIP's own ViTs.
    """

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
        *layer_rules('vision_model', 'backbone', 'ffn.layers.0.0', 'ffn.layers.1', 'attn.'),
        Rule(f'{_TEXT}.token_embedding.weight', 'text_backbone.token_embedding.weight'),
        Rule(f'{_TEXT}.position_embedding.weight', 'text_backbone.pos_embed'),
        Rule('text_model.final_layer_norm.{p}', 'text_backbone.ln_final.{p}'),
        *layer_rules('text_model', 'text_backbone', 'fc1', 'fc2', ''),
    )
    description_file = 'config.json'
    rounding = 'down'
    needs_text = True
    library = 'transformers'
    usage = f"""{CLASSIFY}

# embeddings
from sentence_transformers import SentenceTransformer

model = SentenceTransformer('{{folder}}')
model.similarity(model.encode(['image.jpg']), model.encode(['a cat', 'a dog']))"""
    no_embedding = NO_EMBEDDING

    def recognise(self, names: Collection[str]) -> bool:
        return f'{_IMAGE}.class_embedding' in names and f'{_TEXT}.token_embedding.weight' in names

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        # Older files leave out what is CLIP ViT-B/32's.
        vision, text = towers_of(description)
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
        return ModelSpec.from_weights(
            weights,
            heads=vision.get('num_attention_heads', 12),
            activation=vision.get('hidden_act', 'quick_gelu'),
            eps=eps,
            text_heads=text.get('num_attention_heads', 8),
            text_activation=text.get('hidden_act', 'quick_gelu'),
            preprocessing=_read_preprocessor(description.get('preprocessor', {})),
        )

    def counterpart(self, spec: ModelSpec) -> ModelSpec:
        return spec if spec.vision.pre_norm else with_neutral_norm(spec)

    def check(self, spec: ModelSpec) -> None:
        if spec.text is None:
            raise ValueError(f'{self.title} has no image tower alone: convert it for timm.')
        tokenizer_of(spec.text)
        require_clip(self.title, spec)
        native = dict(pre_norm=True, patch_bias=False, qkv_bias=True, activation={*ACTIVATIONS})
        require(self.title, spec.vision, **native)
        require(self.title, spec.preprocessing, interpolation=set(RESAMPLE), backend='pillow')

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        vision, text = spec.vision, spec.text
        end = text.vocab_size - 1
        content = dict(
            architectures=['CLIPModel'],
            model_type='clip',
            projection_dim=spec.embed_dim,
            max_length=text.context_length,  # servers on transformers 4 would cut texts at 20
            vision_config=dict(
                hidden_size=vision.width,
                intermediate_size=vision.mlp_width,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                hidden_act=vision.activation,
                layer_norm_eps=vision.eps,
                projection_dim=spec.embed_dim,
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
                projection_dim=spec.embed_dim,
                bos_token_id=end - 1,
                eos_token_id=end,
                pad_token_id=end,
            ),
        )
        preprocessor = image_processor(spec.preprocessing, vision.image_size)
        return {
            'config.json': as_json(content),
            'preprocessor_config.json': as_json(preprocessor),
            **tokenizer_files(tokenizer_of(text)),
        }


def image_processor(preprocessing: Preprocessing, size: int) -> dict[str, Any]:
    """Content of ``preprocessor_config.json``, for a filter of :data:`RESAMPLE`."""
    side = preprocessing.short_side(size)
    squash = preprocessing.resize == 'squash'
    return dict(
        image_processor_type='CLIPImageProcessor',
        do_resize=True,
        size=dict(height=side, width=side) if squash else dict(shortest_edge=side),
        resample=RESAMPLE[preprocessing.interpolation],
        do_center_crop=True,
        crop_size=dict(height=size, width=size),
        do_normalize=True,
        image_mean=preprocessing.mean,
        image_std=preprocessing.std,
        do_convert_rgb=True,
    )


def _read_preprocessor(content: Mapping[str, Any]) -> Preprocessing:
    """The settings of ``preprocessor_config.json``; CLIP's where it is silent."""
    size, crop = content.get('size', 224), content.get('crop_size', 224)
    squash = isinstance(size, Mapping) and 'height' in size
    side = size['height' if squash else 'shortest_edge'] if isinstance(size, Mapping) else size
    crop = crop['height'] if isinstance(crop, Mapping) else crop
    names = {number: name for name, number in RESAMPLE.items()}
    resample = content.get('resample', 3)
    preprocessing = Preprocessing(
        mean=content.get('image_mean', CLIP_PIXELS['mean']),
        std=content.get('image_std', CLIP_PIXELS['std']),
        interpolation=names.get(resample, f'resample={resample}'),
        resize='squash' if squash else 'shortest',
        crop=crop / side if content.get('do_center_crop', True) else 1.0,
    )
    return preprocessing.rounded(HuggingFaceCLIP.rounding)
