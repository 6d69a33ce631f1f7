"""Weights under mmslip's own names."""

from collections.abc import Collection, Mapping
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmslip.models.adapters.facts import Facts
from mmslip.models.adapters.family import Family
from mmslip.models.adapters.rules import Rule

__all__ = ['MMSlip']


class MMSlip(Family):
    """Checkpoints of mmslip; with the config they were trained with they go anywhere."""

    name = 'mmslip'
    title = 'mmslip'
    rules = (Rule('{rest}', '{rest}'),)
    description_file = 'config.py'

    def recognise(self, names: Collection[str]) -> bool:
        language_or_ssl = any(name.startswith(('text_backbone.', 'ssl.')) for name in names)
        return language_or_ssl and any(name.startswith('backbone.') for name in names)

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        raise ValueError('Give the config that the model was trained with as --config.')

    def files(self, facts: Facts) -> dict[str, str]:
        return {'config.py': Config(dict(model=facts.config())).pretty_text}

    def checkpoint(self, weights: dict[str, Tensor], facts: Facts) -> dict:
        return dict(state_dict=weights)
