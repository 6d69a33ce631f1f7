"""Weights of mmpretrain's ``VisionTransformer``, the image tower alone."""

from collections.abc import Collection, Mapping
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmslip.models.adapters.facts import Facts
from mmslip.models.adapters.family import Family
from mmslip.models.adapters.rules import Rule

__all__ = ['MMPretrainViT']


class MMPretrainViT(Family):
    """A model of mmpretrain with a ``VisionTransformer``; its head is left out.

    The backbone has our names already, so files of mmpretrain cannot be told from ours; and only
    their config says what they are.
    """

    name = 'mmpretrain'
    title = 'mmpretrain'
    rules = (Rule('backbone.{rest}', 'backbone.{rest}'),)
    description_file = 'config.py'
    no_embedding = (r'(?!backbone\.).+',)
    ours_left_out = (r'(?!backbone\.).+',)

    def recognise(self, names: Collection[str]) -> bool:
        return False

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        raise ValueError("Give the model's mmpretrain config with --config.")

    def files(self, facts: Facts) -> dict[str, str]:
        image_tower = Facts(facts.vision, pixels=facts.pixels).config()
        image_tower['backbone']['type'] = 'VisionTransformer'
        return {'config.py': Config(dict(model=image_tower)).pretty_text}

    def checkpoint(self, weights: dict[str, Tensor], facts: Facts) -> dict:
        return dict(state_dict=weights)
