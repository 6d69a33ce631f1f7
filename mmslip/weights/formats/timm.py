"""Weights of timm's Vision Transformers."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmslip.weights.format import Format, as_json, require
from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.rules import timm_vit_rules
from mmslip.weights.spec import ModelSpec, VisionSpec

__all__ = ['TimmViT', 'describe_timm', 'find_timm']

# Architectures by (pre_norm, eps, activation), which no argument of theirs changes.
_KINDS = {
    (False, 1e-6, 'gelu'): 'vit_base_patch16_224',
    (True, 1e-5, 'gelu'): 'vit_base_patch16_clip_224',
    (True, 1e-5, 'quick_gelu'): 'vit_base_patch16_clip_quickgelu_224',
}
# Arguments of an architecture that a description may set.
_ARGUMENTS = {'img_size', 'patch_size', 'in_chans', 'num_classes', 'global_pool', 'embed_dim'}
_ARGUMENTS |= {'depth', 'num_heads', 'mlp_ratio', 'qkv_bias', 'drop_rate', 'drop_path_rate'}
# (width, layers, heads) of the plain ones by name, for libraries that take a name alone.
_NAMES = {
    (192, 12, 3): 'tiny',
    (384, 12, 6): 'small',
    (768, 12, 12): 'base',
    (1024, 24, 16): 'large',
}


class TimmViT(Format):
    """Vision Transformers of timm that are read out at their class token; classifiers are left out.

    The state dict holds neither heads nor activation nor the norms' eps; the architecture's name
    fixes them, with timm installed. It stands in the ``config.json`` of a folder.
    """

    name = 'timm'
    title = 'timm'
    rules = tuple(timm_vit_rules())
    description_file = 'config.json'
    rounding = 'even'
    library = 'timm'
    usage = """import timm

model = timm.create_model('local-dir:{folder}', pretrained=True)"""
    no_embedding = (r'head(_dist)?\.(weight|bias)',)
    ours_left_out = (r'(?!backbone\.).+',)

    def recognise(self, names: Collection[str]) -> bool:
        return 'cls_token' in names and 'blocks.0.attn.qkv.weight' in names

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        if description is None:
            raise ValueError(
                "timm's weights hold neither attention heads nor activation: give --config with "
                'the config.json of timm, {"architecture": "vit_base_patch16_224"}, or with a '
                'config that has such a backbone.'
            )
        pooling = description.get('global_pool', 'token')
        if pooling not in ('token', ''):
            raise ValueError(f'A ViT of timm with global_pool {pooling!r} has no counterpart.')
        given = describe_timm(description['architecture'], description.get('model_args', {}))
        spec = ModelSpec.from_weights(weights, **given)
        return replace(
            spec,
            preprocessing=_read_preprocessing(
                description.get('pretrained_cfg', {}), spec.vision.image_size
            ),
        )

    def check(self, spec: ModelSpec) -> None:
        _kind_of(spec.vision)
        require(self.title, spec.vision, pooling='class_token')
        require(self.title, spec.preprocessing, backend='pillow')
        require(self.title, spec.vision, patch_bias=not spec.vision.pre_norm)

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        vision = spec.vision
        arguments = dict(
            embed_dim=vision.width,
            depth=vision.layers,
            num_heads=vision.heads,
            mlp_ratio=vision.mlp_width / vision.width,
            img_size=vision.image_size,
            patch_size=vision.patch_size,
            qkv_bias=vision.qkv_bias,
        )
        size = (3, vision.image_size, vision.image_size)
        content = dict(
            architecture=_kind_of(vision),
            num_classes=0,
            num_features=vision.width,
            global_pool='token',
            model_args=arguments,
            pretrained_cfg=dict(
                input_size=size,
                **_write_preprocessing(spec.preprocessing, vision.image_size),
                num_classes=0,
                first_conv='patch_embed.proj',
                classifier='head',
            ),
        )
        return {'config.json': as_json(content)}


def _write_preprocessing(preprocessing: Preprocessing, size: int) -> dict[str, Any]:
    """Settings of timm's ``pretrained_cfg``."""
    side, crop = preprocessing.short_side(size), preprocessing.crop
    if int(size / crop) != side:  # timm rounds down, so a rounding error would cost a pixel
        crop = math.nextafter(size / side, 0)
    return dict(
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        crop_pct=crop,
        crop_mode='squash' if preprocessing.resize == 'squash' else 'center',
    )


def _read_preprocessing(content: Mapping[str, Any], size: int) -> Preprocessing:
    """The settings of ``pretrained_cfg``; timm's defaults where it is silent."""
    mode = content.get('crop_mode', 'center')
    settings = {key: content[key] for key in ('mean', 'std') if key in content}
    return Preprocessing(
        **settings,
        interpolation=content.get('interpolation', 'bicubic'),
        resize=dict(center='shortest').get(mode, mode),
        crop=size / int(size / content.get('crop_pct', 0.875)),
    )


def describe_timm(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, activation and eps of an architecture, from timm itself.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: It is another model than mmslip's ViT, or an argument is not a size.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'The layers of {architecture!r} are known to timm alone: pip install '
            '"mmslip[timm]", or give a config that has such a backbone with --config.'
        ) from error
    # Names with a colon are fetched from elsewhere, and some arguments load files.
    if not timm.is_model(architecture) or not set(arguments) <= _ARGUMENTS:
        known = ', '.join(sorted(_ARGUMENTS))
        raise ValueError(
            f'{architecture!r} with {dict(arguments)!r} is not used: the architecture has to be '
            f'one of timm.list_models(), its arguments among {known}.'
        )
    with torch.device('meta'):
        model = timm.create_model(architecture, **arguments)
    kind = type(model.blocks[0].mlp.act).__name__ if hasattr(model, 'blocks') else None
    activation = {'GELU': 'gelu', 'QuickGELU': 'quick_gelu'}.get(kind)
    plain = getattr(model, 'num_prefix_tokens', 0) == 1 and getattr(model, 'has_class_token', False)
    if activation is None or not plain or model.global_pool not in ('token', ''):
        raise ValueError(
            f'{architecture!r} is no ViT with GELU or QuickGELU that is read out at its one class '
            'token.'
        )
    block = model.blocks[0]
    return dict(heads=block.attn.num_heads, activation=activation, eps=block.norm1.eps)


def find_timm(vision: VisionSpec) -> str | None:
    """The architecture of timm that is this ViT at 224 pixels, by its name alone; None without."""
    size = _NAMES.get((vision.width, vision.layers, vision.heads))
    plain = not vision.pre_norm and vision.patch_bias and vision.qkv_bias
    if (
        size is None
        or not plain
        or (vision.eps, vision.activation) != (1e-6, 'gelu')
        or vision.mlp_width != 4 * vision.width
        or vision.patch_size not in (16, 32)
        or (vision.patch_size, size) == (32, 'tiny')
        or vision.image_size != 224
    ):
        return None
    return f'vit_{size}_patch{vision.patch_size}_224'


def _kind_of(vision: VisionSpec) -> str:
    kind = vision.pre_norm, vision.eps, vision.activation
    if kind not in _KINDS:
        raise ValueError(
            f'timm has no ViT with pre_norm {vision.pre_norm}, eps {vision.eps} and '
            f'{vision.activation}.'
        )
    return _KINDS[kind]
