"""Weights between two trainings: before and after an adaptation."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmslip.weights.fit import plain_name
from mmslip.weights.load import load_from_local
from mmslip.weights.lora import merge_lora

__all__ = ['interpolate_weights', 'read_pair']


def read_pair(first: str | Path, second: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the weights that two files or folders share, under mmslip's names.

    A self-supervised half, which only serves training, is left out; LoRA is merged.

    Raises:
        FileNotFoundError, RuntimeError: One cannot be read.
        ValueError: They are no weights of one architecture; the message names some that differ.
    """
    pair = [_read(path) for path in (first, second)]
    before, after = pair
    if lacking := sorted(before.keys() ^ after.keys()):
        name = lacking[0]
        place, other = (first, second) if name in before else (second, first)
        raise ValueError(
            f'{len(lacking)} weights are in one alone, such as {name}, which {place} has and '
            f'{other} lacks: interpolate between weights of one architecture.'
        )
    shapes = {name: [tuple(part[name].shape) for part in pair] for name in before}
    if wrong := [name for name, (one, other) in shapes.items() if one != other]:
        name = wrong[0]
        remedy = 'interpolate between weights of one architecture'
        if wrong == ['backbone.pos_embed']:
            remedy = f'bring one to the image size of the other: mmslip convert {first} FOLDER '
            remedy += '--image-size N'
        raise ValueError(
            f'{len(wrong)} weights differ in shape, such as {name}: {shapes[name][0]} in {first}, '
            f'{shapes[name][1]} in {second}: {remedy}.'
        )
    return before, after


def interpolate_weights(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """``(1 - alpha) * first + alpha * second`` (WiSE-FT, Wortsman et al., arXiv 2109.01903).

    Args:
        first: Weights before an adaptation; of :func:`read_pair`.
        second: Those after it, of the same names and shapes. What is no floating-point number,
            such as a count of batches, is taken from these.
        alpha: In [0, 1].

    Raises:
        ValueError: ``alpha`` lies outside.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha is {alpha}, not between 0 (before) and 1 (after).')
    return {
        name: first[name].float().lerp(value.float(), alpha).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in second.items()
    }


def _read(path: str | Path) -> dict[str, Tensor]:
    weights = load_from_local(str(path))['state_dict']
    weights = {plain_name(name): value for name, value in merge_lora(weights).items()}
    return {name: value for name, value in weights.items() if not name.startswith('ssl.')}
