"""Weights of mmpretrain's ``VisionTransformer``, the image tower alone."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmslip.weights.format import Format
from mmslip.weights.rules import Rule
from mmslip.weights.spec import ModelSpec

__all__ = ['MMPretrainViT']


class MMPretrainViT(Format):
    """A model of mmpretrain with a ``VisionTransformer``; its head is left out.

    The backbone has our names already, so ``--from mmpretrain`` has to name the format, and only
    the config, a program, describes the model.
    """

    name = 'mmpretrain'
    title = 'mmpretrain'
    rules = (Rule('backbone.{rest}', 'backbone.{rest}'),)
    library = 'mmpretrain'
    usage = """import mmslip.engine  # mmengine reads no .safetensors by itself
from mmengine import Config
from mmpretrain import get_model

config = Config.fromfile('{folder}/config.py')
model = get_model(config, pretrained='{folder}/model.safetensors')"""
    no_embedding = (r'(?!backbone\.).+',)
    ours_left_out = (r'(?!backbone\.).+',)

    def recognise(self, names: Collection[str]) -> bool:
        return False

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        raise ValueError("Give the model's mmpretrain config with --config.")

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        config = replace(spec, text=None, embed_dim=None, ssl=None).config()
        config['model']['backbone']['type'] = 'VisionTransformer'
        return {'config.py': Config(config).pretty_text}

    def checkpoint(self, weights: dict[str, Tensor], spec: ModelSpec) -> dict:
        return dict(state_dict=weights)
