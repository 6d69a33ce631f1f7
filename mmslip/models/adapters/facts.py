"""What has to be known of a model besides its weights, for every library alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mmslip.models.backbones import TextTransformer
from mmslip.registry import MODELS

__all__ = ['CLIP_PIXELS', 'IMAGENET_PIXELS', 'Facts', 'Text', 'Vision', 'resize_positions']

# Per-channel mean and standard deviation, RGB, on the 0-1 scale.
IMAGENET_PIXELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_PIXELS = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
ACTIVATIONS = ('gelu', 'quick_gelu')


@dataclass(frozen=True)
class Vision:
    """A ViT that is read out at its class token, behind the final norm."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    patch_size: int
    image_size: int
    activation: str
    eps: float
    pre_norm: bool
    patch_bias: bool
    qkv_bias: bool


@dataclass(frozen=True)
class Text:
    """CLIP's text tower; its MLPs are four times as wide as it is."""

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    activation: str


@dataclass(frozen=True)
class Facts:
    """A model: its towers, the width of the joint space, SimCLR's MLP, the scale of its pixels.

    Args:
        vision: The image tower.
        text: The text tower; ``None`` for an image tower alone.
        embed_dim: Width of the joint image-text space, with a text tower.
        ssl: Hidden and output width of SimCLR's MLP, where there is one.
        sigmoid: Whether the head adds a learned bias, as the sigmoid loss has it.
        pixels: Per-channel mean and standard deviation, RGB, of images in [0, 1].
    """

    vision: Vision
    text: Text | None = None
    embed_dim: int | None = None
    ssl: tuple[int, int] | None = None
    sigmoid: bool = False
    pixels: tuple[Sequence[float], Sequence[float]] = IMAGENET_PIXELS

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, Tensor],
        heads: int,
        activation: str,
        eps: float,
        text_heads: int | None = None,
        text_activation: str | None = None,
        pixels: tuple[Sequence[float], Sequence[float]] = IMAGENET_PIXELS,
    ) -> 'Facts':
        """Read the shapes of weights under our names; the rest has to be given.

        Raises:
            ValueError: The patches are no square grid.
        """
        shape = {name: tuple(value.shape) for name, value in weights.items()}
        mlp_width, width = shape['backbone.layers.0.ffn.layers.0.0.weight']
        patch_size = shape['backbone.patch_embed.projection.weight'][-1]
        vision = Vision(
            width=width,
            layers=_count_layers(shape, 'backbone.layers.'),
            heads=heads,
            mlp_width=mlp_width,
            patch_size=patch_size,
            image_size=_grid(shape['backbone.pos_embed'][1]) * patch_size,
            activation=activation,
            eps=eps,
            pre_norm='backbone.pre_norm.weight' in shape,
            patch_bias='backbone.patch_embed.projection.bias' in shape,
            qkv_bias='backbone.layers.0.attn.qkv.bias' in shape,
        )
        text = embed_dim = ssl = None
        if 'text_backbone.pos_embed' in shape:
            vocab_size, text_width = shape['text_backbone.token_embedding.weight']
            text = Text(
                vocab_size=vocab_size,
                context_length=shape['text_backbone.pos_embed'][0],
                width=text_width,
                layers=_count_layers(shape, 'text_backbone.layers.'),
                heads=text_heads,
                activation=text_activation,
            )
            embed_dim = shape['text_neck.weight'][1]
        if 'ssl.neck.fc2.weight' in shape:
            ssl = (shape['ssl.neck.fc0.weight'][0], shape['ssl.neck.fc2.weight'][0])
        pixels = tuple(tuple(values) for values in pixels)
        return cls(vision, text, embed_dim, ssl, 'head.logit_bias' in shape, pixels)

    @classmethod
    def from_config(cls, model: Mapping[str, Any], pixels: Mapping[str, Any]) -> 'Facts':
        """Read the ``model`` of a config; ``pixels`` is the config of its preprocessor.

        Raises:
            ValueError: Its towers are others than :class:`Vision` and :class:`Text` describe.
        """
        with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
            backbone = MODELS.build({**model['backbone'], 'init_cfg': None})
            text = MODELS.build(model['text_backbone']) if model.get('text_backbone') else None
        facts = cls(_vision_of(backbone), pixels=_pixels_of(pixels))
        if text is None:
            return facts
        embed_dim = model['text_neck'].get('out_channels')
        return replace(facts, text=_text_of(text), embed_dim=embed_dim)

    def config(self) -> dict:
        """The ``model`` of a mmslip config; an mmpretrain classifier for an image tower alone."""
        mean, std = ([round(255 * value, 6) for value in values] for values in self.pixels)
        if self.text is None and self.ssl is None:
            pixels = dict(mean=mean, std=std, to_rgb=True)
            return dict(type='ImageClassifier', backbone=self.backbone(), data_preprocessor=pixels)
        model = dict(
            type='mmslip.SLIP',
            data_preprocessor=dict(type='mmslip.SLIPDataPreprocessor', mean=mean, std=std),
            backbone=self.backbone(),
        )
        if self.text is not None:
            model.update(self._language())
        if self.ssl is not None:
            model['ssl'] = self._simclr()
        return model

    def backbone(self, name: str = 'mmslip.VisionTransformer') -> dict:
        """The config of the image tower."""
        vision = self.vision
        cfg = dict(
            type=name,
            arch=dict(
                embed_dims=vision.width,
                num_layers=vision.layers,
                num_heads=vision.heads,
                feedforward_channels=vision.mlp_width,
            ),
            img_size=vision.image_size,
            patch_size=vision.patch_size,
            qkv_bias=vision.qkv_bias,
            norm_cfg=dict(type='LN', eps=vision.eps),
            pre_norm=vision.pre_norm,
            patch_cfg=dict(bias=vision.patch_bias),
        )
        kind = dict(gelu='GELU', quick_gelu='mmpretrain.QuickGELU')[vision.activation]
        return {**cfg, 'layer_cfgs': dict(act_cfg=dict(type=kind))}

    def _language(self) -> dict:
        text = self.text
        projection = dict(type='mmslip.LinearProjection', out_channels=self.embed_dim)
        return dict(
            neck=dict(projection, in_channels=self.vision.width),
            text_backbone=dict(
                type='mmslip.TextTransformer',
                vocab_size=text.vocab_size,
                context_length=text.context_length,
                width=text.width,
                num_layers=text.layers,
                num_heads=text.heads,
                quick_gelu=text.activation == 'quick_gelu',
            ),
            text_neck=dict(projection, in_channels=text.width),
            head=dict(type='mmslip.SigLIPHead' if self.sigmoid else 'mmslip.CLIPHead'),
        )

    def _simclr(self) -> dict:
        hidden, out = self.ssl
        neck = dict(
            type='NonLinearNeck',
            in_channels=self.vision.width,
            hid_channels=hidden,
            out_channels=out,
            num_layers=3,
            with_bias=True,
            with_last_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'),
        )
        return dict(type='mmslip.SimCLR', neck=neck, head=dict(type='mmslip.SimCLRHead'))


def resize_positions(
    weights: Mapping[str, Tensor], facts: Facts, image_size: int
) -> tuple[dict[str, Tensor], Facts]:
    """Interpolate the position embeddings (bicubic) to another image size; the class token stays.

    Raises:
        ValueError: ``image_size`` is no multiple of the patch size.
    """
    patch, old = facts.vision.patch_size, facts.vision.image_size
    if image_size % patch:
        raise ValueError(f'An image of {image_size} pixels has no whole patches of {patch}.')
    grids = ((size // patch,) * 2 for size in (old, image_size))
    resized = resize_pos_embed(weights['backbone.pos_embed'], *grids, mode='bicubic')
    facts = replace(facts, vision=replace(facts.vision, image_size=image_size))
    return {**weights, 'backbone.pos_embed': resized}, facts


def _count_layers(names: Mapping, prefix: str) -> int:
    return 1 + max(int(name.split('.')[2]) for name in names if name.startswith(prefix))


def _grid(tokens: int) -> int:
    side = round((tokens - 1) ** 0.5)
    if side**2 + 1 != tokens:
        raise ValueError(
            f'{tokens} position embeddings are not those of a class token and a square grid.'
        )
    return side


def _activation_of(module: nn.Module) -> str:
    if type(module).__name__ == 'QuickGELU':
        return 'quick_gelu'
    if isinstance(module, nn.GELU) and module.approximate == 'none':
        return 'gelu'
    raise ValueError(f'The activation {module} is neither GELU nor QuickGELU.')


def _vision_of(backbone: nn.Module) -> Vision:
    if not hasattr(backbone, 'patch_embed') or not hasattr(backbone, 'arch_settings'):
        raise ValueError(f'The image tower is a {type(backbone).__name__}; a ViT is needed.')
    plain = backbone.out_type == 'cls_token' and backbone.final_norm
    layer = backbone.layers[0]
    if not plain or not hasattr(layer.ffn, 'layers') or hasattr(layer.attn.gamma1, 'weight'):
        raise ValueError(
            'The image tower has layer scale, SwiGLU, no final norm or another output than its '
            'class token; no library but mmpretrain has the same.'
        )
    arch = backbone.arch_settings
    return Vision(
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
    )


def _text_of(tower: nn.Module) -> Text:
    if not isinstance(tower, TextTransformer):
        raise ValueError(f'The text tower is a {type(tower).__name__}, not a TextTransformer.')
    return Text(
        vocab_size=tower.token_embedding.num_embeddings,
        context_length=tower.context_length,
        width=tower.width,
        layers=len(tower.layers),
        heads=tower.layers[0].num_heads,
        activation=_activation_of(tower.layers[0].act),
    )


def _pixels_of(cfg: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    if cfg.get('mean') is None:
        return IMAGENET_PIXELS
    return tuple(tuple(round(value / 255, 8) for value in cfg[key]) for key in ('mean', 'std'))
