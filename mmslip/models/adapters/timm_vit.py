"""Weights of timm's Vision Transformers."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmslip.models.adapters.facts import Facts, Vision
from mmslip.models.adapters.family import Family, as_json, require
from mmslip.models.adapters.rules import timm_vit_rules

__all__ = ['TimmViT', 'describe_timm', 'find_timm']

# Architectures by what no argument of theirs changes: (pre_norm, eps, activation).
_KINDS = {
    (False, 1e-6, 'gelu'): 'vit_base_patch16_224',
    (True, 1e-5, 'gelu'): 'vit_base_patch16_clip_224',
    (True, 1e-5, 'quick_gelu'): 'vit_base_patch16_clip_quickgelu_224',
}
# (width, layers, heads) of the plain ones by name, for libraries that take a name alone.
_NAMES = {
    (192, 12, 3): 'tiny',
    (384, 12, 6): 'small',
    (768, 12, 12): 'base',
    (1024, 24, 16): 'large',
}


class TimmViT(Family):
    """Vision Transformers of timm that are read out at their class token; classifiers are left out.

    The state dict tells neither heads nor activation nor the norms' eps; the architecture's name
    does, with timm installed. It stands in the ``config.json`` of a folder in the layout of timm.
    """

    name = 'timm'
    title = 'timm'
    rules = tuple(timm_vit_rules())
    description_file = 'config.json'
    no_embedding = (r'head(_dist)?\.(weight|bias)',)
    ours_left_out = (r'(?!backbone\.).+',)

    def recognise(self, names: Collection[str]) -> bool:
        return 'cls_token' in names and 'blocks.0.attn.qkv.weight' in names

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        if description is None:
            raise ValueError(
                "timm's weights tell neither attention heads nor activation: give --config with "
                'the config.json of timm, {"architecture": "vit_base_patch16_224"}, or with a '
                'config that has such a backbone.'
            )
        pooling = description.get('global_pool', 'token')
        if pooling not in ('token', ''):
            raise ValueError(f'A ViT of timm with global_pool {pooling!r} has no counterpart.')
        given = describe_timm(description['architecture'], description.get('model_args', {}))
        pixels = description.get('pretrained_cfg', {})
        if 'mean' in pixels:
            given['pixels'] = (pixels['mean'], pixels['std'])
        return Facts.from_weights(weights, **given)

    def check(self, facts: Facts) -> None:
        _kind_of(facts.vision)
        require(self.title, facts.vision, patch_bias=not facts.vision.pre_norm)

    def files(self, facts: Facts) -> dict[str, str]:
        vision = facts.vision
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
                interpolation='bicubic',
                mean=facts.pixels[0],
                std=facts.pixels[1],
                num_classes=0,
                first_conv='patch_embed.proj',
                classifier='head',
            ),
        )
        return {'config.json': as_json(content)}


def describe_timm(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Heads, activation and eps of an architecture, from timm itself.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: It is another model than mmslip's ViT.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'What {architecture!r} is, only timm knows: pip install "mmslip[timm]", or give a '
            'config that has such a backbone with --config.'
        ) from error
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


def find_timm(vision: Vision) -> str:
    """The architecture of timm that is this ViT at 224 pixels, by its name alone.

    Raises:
        ValueError: There is none.
    """
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
        raise ValueError(
            f'Among the ViTs that timm has under a name, none is this one: {vision}. (The ViT-S of '
            'SLIP has 12 heads, that of timm 6.)'
        )
    return f'vit_{size}_patch{vision.patch_size}_224'


def _kind_of(vision: Vision) -> str:
    kind = vision.pre_norm, vision.eps, vision.activation
    if kind not in _KINDS:
        raise ValueError(
            f'timm has no ViT with pre_norm {vision.pre_norm}, eps {vision.eps} and '
            f'{vision.activation}.'
        )
    return _KINDS[kind]
