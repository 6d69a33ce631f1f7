"""The architecture of a model, in words that every library has: sizes, heads, activations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mmslip.registry import MODELS
from mmslip.weights.preprocessing import Preprocessing

__all__ = [
    'ACTIVATIONS',
    'ACT_CFGS',
    'MERGES_NAME',
    'ForeignText',
    'ModelSpec',
    'TextSpec',
    'VisionSpec',
    'as_lists',
    'resize_positions',
]

ACTIVATIONS = ('gelu', 'quick_gelu')
# Configs of those that image tower and SigLIP's text tower may have.
ACT_CFGS = dict(
    gelu=dict(type='GELU'),
    quick_gelu=dict(type='mmpretrain.QuickGELU'),
    gelu_tanh=dict(type='GELU', approximate='tanh'),
)
# In a folder of weights: the merges of their tokeniser.
MERGES_NAME = 'merges.txt'


@dataclass(frozen=True)
class VisionSpec:
    """A ViT, and what makes one feature of its tokens behind the final norm.

    ``pooling`` is ``'class_token'``, or ``'attention'`` for a ViT without one in front of a
    :class:`mmslip.models.AttentionPooling` whose heads, MLP, activation and eps are those of its
    layers, as in SigLIP. The latter stands in the place of the projection.
    """

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
    pooling: str = 'class_token'

    def __post_init__(self) -> None:
        _check_tower(self, tuple(ACT_CFGS))


@dataclass(frozen=True)
class TextSpec:
    """CLIP's text tower, whose MLPs are four times as wide as it is.

    By default its tokeniser is CLIP's with as many merges as fit. ``merges_file`` is the path of a
    table that was trained on own captions; ``tokenizer`` names any other tokeniser.
    """

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    activation: str
    tokenizer: str | None = None
    merges_file: str | None = None

    def __post_init__(self) -> None:
        _check_tower(self, ACTIVATIONS)

    def own_tokenizer(self) -> dict[str, Any] | None:
        """Config of the tokeniser; None where the sizes of the tower tell that it is CLIP's."""
        if self.merges_file is None:
            return None
        return dict(
            type='mmslip.CLIPTokenizer',
            context_length=self.context_length,
            merges_file=self.merges_file,
            num_merges=self.vocab_size - 514,
        )


@dataclass(frozen=True)
class ForeignText:
    """Any other text tower, or one with another tokeniser, as mmslip alone has them.

    Args:
        tower: Its config, which names no file.
        tokenizer: The config of its tokeniser.
    """

    tower: dict[str, Any]
    tokenizer: dict[str, Any]

    def own_tokenizer(self) -> dict[str, Any]:
        """Config of the tokeniser."""
        return self.tokenizer

    def build(self) -> nn.Module:
        """The tower, without weights."""
        with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
            return MODELS.build(dict(self.tower))


@dataclass(frozen=True)
class ModelSpec:
    """A model: its towers, the joint space, SimCLR's MLP and how images are prepared.

    Args:
        vision: The image tower.
        text: The text tower; ``None`` for an image tower alone.
        embed_dim: Width of the joint image-text space, with a text tower.
        ssl: Hidden and output width of SimCLR's MLP, where there is one.
        sigmoid: Whether the head adds a learned bias, as the sigmoid loss has it.
        text_bias: Whether the projection of texts adds one, as SigLIP's does.
        preprocessing: Of the evaluation.
    """

    vision: VisionSpec
    text: TextSpec | ForeignText | None = None
    embed_dim: int | None = None
    ssl: tuple[int, int] | None = None
    sigmoid: bool = False
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    text_bias: bool = False

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, Tensor],
        heads: int,
        activation: str,
        eps: float,
        text_heads: int | None = None,
        text_activation: str | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> 'ModelSpec':
        """Read the shapes of weights under mmslip's names; the rest is given.

        Raises:
            ValueError: The patches are no square grid.
        """
        shape = {name: tuple(value.shape) for name, value in weights.items()}
        mlp_width, width = shape['backbone.layers.0.ffn.layers.0.0.weight']
        patch_size = shape['backbone.patch_embed.projection.weight'][-1]
        class_token = 'backbone.cls_token' in shape
        vision = VisionSpec(
            width=width,
            layers=_count_layers(shape, 'backbone.layers.'),
            heads=heads,
            mlp_width=mlp_width,
            patch_size=patch_size,
            image_size=_grid(shape['backbone.pos_embed'][1], class_token) * patch_size,
            activation=activation,
            eps=eps,
            pre_norm='backbone.pre_norm.weight' in shape,
            patch_bias='backbone.patch_embed.projection.bias' in shape,
            qkv_bias='backbone.layers.0.attn.qkv.bias' in shape,
            pooling='class_token' if class_token else 'attention',
        )
        text = embed_dim = ssl = None
        if 'text_backbone.pos_embed' in shape:
            vocab_size, text_width = shape['text_backbone.token_embedding.weight']
            text = TextSpec(
                vocab_size=vocab_size,
                context_length=shape['text_backbone.pos_embed'][0],
                width=text_width,
                layers=_count_layers(shape, 'text_backbone.layers.'),
                heads=text_heads,
                activation=text_activation,
            )
        if 'text_neck.weight' in shape:
            embed_dim = shape['text_neck.weight'][1]
        if 'ssl.neck.fc2.weight' in shape:
            ssl = (shape['ssl.neck.fc0.weight'][0], shape['ssl.neck.fc2.weight'][0])
        sigmoid = 'head.logit_bias' in shape
        images, text_bias = preprocessing or Preprocessing(), 'text_neck.bias' in shape
        return cls(vision, text, embed_dim, ssl, sigmoid, images, text_bias)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> 'ModelSpec':
        """Read a description of :meth:`to_json` for these weights, whose shapes decide.

        Raises:
            KeyError: It lacks a key.
            ValueError: It says anything else than the shapes of the weights.
        """
        vision, text = content['vision'], content['text'] or {}
        foreign = ForeignText(**text) if 'tower' in text else None
        if foreign:  # whose shapes say nothing
            names = (name for name in weights if not name.startswith('text_backbone.'))
            weights = {name: weights[name] for name in names}
        elif text:
            text = {'tokenizer': None, 'merges_file': None, **text}  # absent in older folders
            content = {**content, 'text': text}
        images = {'rounding': 'even', **content['preprocessing']}
        vision = {'pooling': 'class_token', **vision}
        content = {'text_bias': False, **content, 'vision': vision, 'preprocessing': images}
        spec = cls.from_weights(
            weights,
            heads=vision['heads'],
            activation=vision['activation'],
            eps=vision['eps'],
            text_heads=text.get('heads'),
            text_activation=text.get('activation'),
            preprocessing=Preprocessing(**images),
        )
        if foreign:
            spec = replace(spec, text=foreign)
        elif spec.text is not None:
            given = {key: text[key] for key in ('tokenizer', 'merges_file')}
            spec = replace(spec, text=replace(spec.text, **given))
        wrong = [key for key, value in spec.to_json().items() if value != content[key]]
        if wrong:
            raise ValueError(
                f'The description does not fit the shapes of the weights in {", ".join(wrong)}.'
            )
        return spec

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values, with lists as JSON has them; an own table lies beside it."""
        content = as_lists(asdict(self))
        if getattr(self.text, 'merges_file', None) is not None:
            content['text']['merges_file'] = MERGES_NAME
        return content

    def config(self) -> dict[str, Any]:
        """A config with ``model`` and ``test_pipeline``."""
        size = self.vision.image_size
        config = dict(model=self.model(), test_pipeline=self.preprocessing.pipeline(size))
        tokenizer = self.text and self.text.own_tokenizer()
        if tokenizer:  # which evaluation and inference ask the hook for
            config['custom_hooks'] = [dict(type='mmslip.ZeroShotHook', tokenizer=tokenizer)]
        return config

    def model(self) -> dict[str, Any]:
        """The ``model`` of a mmslip config; an mmpretrain classifier for an image tower alone."""
        pixels = self.preprocessing.pixels_255()
        if self.text is None and self.ssl is None:
            pixels['to_rgb'] = True
            return dict(type='ImageClassifier', backbone=self.backbone(), data_preprocessor=pixels)
        model = dict(
            type='mmslip.SLIP',
            data_preprocessor=dict(type='mmslip.SLIPDataPreprocessor', **pixels),
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
        if vision.pooling == 'attention':
            cfg.update(with_cls_token=False, out_type='featmap')
        return {**cfg, 'layer_cfgs': dict(act_cfg=ACT_CFGS[vision.activation])}

    def _neck(self) -> dict:
        """The config of what makes an embedding of the image tower's output."""
        vision = self.vision
        if vision.pooling == 'attention':
            return dict(
                type='mmslip.AttentionPooling',
                in_channels=vision.width,
                num_heads=vision.heads,
                feedforward_channels=vision.mlp_width,
                act_cfg=ACT_CFGS[vision.activation],
                norm_cfg=dict(type='LN', eps=vision.eps),
            )
        return dict(
            type='mmslip.LinearProjection',
            out_channels=self.embed_dim,
            in_channels=vision.width,
        )

    def _language(self) -> dict:
        text = self.text
        projection = dict(type='mmslip.LinearProjection', out_channels=self.embed_dim)
        if self.text_bias:
            projection['bias'] = True
        head = dict(type='mmslip.SigLIPHead' if self.sigmoid else 'mmslip.CLIPHead')
        if isinstance(text, ForeignText):
            towers = dict(neck=self._neck(), text_backbone=text.tower)
            return dict(**towers, text_neck=projection, head=head)
        return dict(
            neck=self._neck(),
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
            head=head,
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
    weights: Mapping[str, Tensor], spec: ModelSpec, image_size: int
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Interpolate the position embeddings (bicubic) to another image size; the class token stays.

    Raises:
        ValueError: ``image_size`` is no multiple of the patch size.
    """
    patch, old = spec.vision.patch_size, spec.vision.image_size
    if image_size % patch:
        raise ValueError(f'An image of {image_size} pixels has no whole patches of {patch}.')
    grids = ((size // patch,) * 2 for size in (old, image_size))
    extra = int(spec.vision.pooling == 'class_token')
    resized = resize_pos_embed(weights['backbone.pos_embed'], *grids, 'bicubic', extra)
    spec = replace(spec, vision=replace(spec.vision, image_size=image_size))
    return {**weights, 'backbone.pos_embed': resized}, spec


def _count_layers(names: Mapping, prefix: str) -> int:
    return 1 + max(int(name.split('.')[2]) for name in names if name.startswith(prefix))


def _grid(tokens: int, class_token: bool) -> int:
    side = round((tokens - class_token) ** 0.5)
    if side**2 + class_token != tokens:
        what = 'a class token and a square grid' if class_token else 'a square grid'
        raise ValueError(f'{tokens} position embeddings are not those of {what}.')
    return side


def _check_tower(tower: VisionSpec | TextSpec, activations: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for wrong values of those fields that no shape fixes."""
    name = type(tower).__name__
    if tower.activation not in activations:
        raise ValueError(
            f'{name}: the activation {tower.activation!r} is not one of {activations}.'
        )
    if not isinstance(tower.heads, int) or tower.heads < 1:
        raise ValueError(f'{name}: {tower.heads!r} is no number of attention heads.')


def as_lists(value: Any) -> Any:
    """Plain dictionaries and lists in place of mappings and tuples, as JSON has them."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value
