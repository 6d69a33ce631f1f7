"""Weights of low-rank adaptation, merged into those of the plain model."""

from collections.abc import Mapping
from typing import Any

__all__ = ['merge_lora']

_BASE, _OWN = '.base_layer.', '.lora_'


def merge_lora(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the low-rank product of every adapted layer to its matrix, under the plain names.

    Args:
        weights: By name. ``X.base_layer.weight`` ``(O, I)``, ``X.lora_A.default.weight``
            ``(R, I)``, ``X.lora_B.default.weight`` ``(O, R)`` and the factor ``X.lora_scale`` of
            :func:`mmslip.models.lora.add_lora` become ``X.weight``.

    Returns:
        The weights; those given, where nothing is adapted.
    """
    if not any(_OWN in name for name in weights):
        return weights
    merged = {}
    for name, value in weights.items():
        stem, is_adapted, leaf = name.rpartition(_BASE)
        if is_adapted and leaf == 'weight':
            down, up = (weights[f'{stem}.lora_{part}.default.weight'] for part in 'AB')
            value = value + weights[f'{stem}.lora_scale'] * (up @ down)
        if _OWN not in name:
            merged[f'{stem}.{leaf}' if is_adapted else name] = value
    return merged
