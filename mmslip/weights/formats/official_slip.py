"""Weights of the official SLIP repository: its SLIP, CLIP and SimCLR models."""

import argparse
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from mmslip.weights.format import Format, require, require_clip
from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.rules import Rule, clip_text_rules, timm_vit_rules
from mmslip.weights.spec import ModelSpec

__all__ = ['OfficialSLIP']

# Width to attention heads: ViT-S is MoCo v3's, with 12 heads.
_HEADS = {384: 12, 768: 12, 1024: 16}
_SIZES = {384: 'S', 768: 'B', 1024: 'L'}


class OfficialSLIP(Format):
    """The official SLIP code (Mu et al., arXiv 2112.12750).

    Its files do not hold the number of heads; the three published widths fix it. The code has GELU
    in the image tower, QuickGELU in the text tower, and evaluates at the short side, bilinear, with
    ImageNet's mean and standard deviation.
    """

    name = 'official_slip'
    title = 'the official SLIP code'
    rounding = 'even'
    rules = (
        *timm_vit_rules('visual.'),
        *clip_text_rules(),
        Rule('image_projection', 'neck.weight'),
        Rule('image_mlp.layer1.{p}', 'ssl.neck.fc0.{p}'),
        Rule('image_mlp.bn1.{rest}', 'ssl.neck.bn0.{rest}'),
        Rule('image_mlp.layer2.{p}', 'ssl.neck.fc1.{p}'),
        Rule('image_mlp.bn2.{rest}', 'ssl.neck.bn1.{rest}'),
        Rule('image_mlp.layer3.{p}', 'ssl.neck.fc2.{p}'),
    )

    def recognise(self, names: Collection[str]) -> bool:
        return 'visual.cls_token' in names and 'visual.patch_embed.proj.weight' in names

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        width = weights['backbone.cls_token'].shape[-1]
        projection = weights.get('text_neck.weight')  # (C, D)
        if width not in _HEADS or (projection is not None and projection.shape[0] != 512):
            raise ValueError(
                f'A model {width} wide is none of the official ones (384, 768, 1024, with text '
                'towers 512 wide), so its attention heads are not known: give a mmslip config of '
                'it with --config.'
            )
        return ModelSpec.from_weights(
            weights,
            heads=_HEADS[width],
            activation='gelu',
            eps=1e-6,
            text_heads=8,
            text_activation='quick_gelu',
        )

    def check(self, spec: ModelSpec) -> None:
        vision = dict(activation='gelu', eps=1e-6, pre_norm=False, patch_bias=True, qkv_bias=True)
        require_clip(self.title, spec)
        require(self.title, spec.vision, **vision)
        require(self.title, spec.preprocessing.rounded('even'), **asdict(Preprocessing()))
        if spec.text is not None:
            require(self.title, spec.text, activation='quick_gelu')

    def checkpoint(self, weights: dict[str, Tensor], spec: ModelSpec) -> dict:
        """As the official code writes it; ``args`` names its model."""
        kind = 'SIMCLR' if spec.text is None else 'SLIP' if spec.ssl else 'CLIP'
        size = _SIZES.get(spec.vision.width, '?')
        hidden, out = spec.ssl or (4096, 256)
        args = argparse.Namespace(
            model=f'{kind}_VIT{size}{spec.vision.patch_size}', ssl_mlp_dim=hidden, ssl_emb_dim=out
        )
        state_dict = {f'module.{name}': value for name, value in weights.items()}
        return dict(epoch=0, state_dict=state_dict, best_acc1=0.0, args=args)
