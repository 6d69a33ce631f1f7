"""Weights of a file under the names of a model, whatever a trainer has put in front of them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmslip.weights.lora import merge_lora

__all__ = ['Fit', 'beginnings', 'fit_weights', 'plain_name']

# Parts of names that wrappers add: torch.compile, DDP and averages, FSDP, recomputation, LoRA.
_WRAPPERS = re.compile(
    r'(?:(?<=\.)|^)'
    r'(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer)\.'
)

_ROWS = 12  # of a report


def plain_name(name: str) -> str:
    """A name without the parts that wrappers add, wherever they stand."""
    return _WRAPPERS.sub('', name)


@dataclass(frozen=True)
class Fit:
    """Weights of a file beside the model that they are for.

    Args:
        weights: All of the file, those that the model has a place for under its names.
        loaded: Names of the model that are filled.
        resized: Of these, the ones that the model interpolates, such as position embeddings; with
            the shape in the file and in the model.
        other_shape: Names of the model whose weights have another shape; with both.
        missing: Names of the model that the file lacks.
        unexpected: Names of the file that the model lacks.
        renamed: The beginning taken off the names, and the one put in front instead.
    """

    weights: dict[str, Any]
    loaded: list[str]
    resized: dict[str, tuple]
    other_shape: dict[str, tuple]
    missing: list[str]
    unexpected: list[str]
    renamed: tuple[str, str]

    @property
    def exact(self) -> bool:
        """Whether file and model have the same names and shapes."""
        return not (self.resized or self.other_shape or self.missing or self.unexpected)

    def require_some(self, source: str) -> None:
        """Refuse weights of which none is loaded: the model would stay random.

        Raises:
            ValueError: The message has names of both.
        """
        if not self.loaded:
            wanted = ', '.join([*self.other_shape, *self.missing][:3])
            given = ', '.join(list(self.weights)[:3])
            raise ValueError(
                f'Not one weight of {source} fits the model: it has {given}, ...; the model has '
                f'{wanted}, .... Give the weights or the config of the same architecture.'
            )

    def report(self) -> str:
        """A line; unless everything fits, with a table below, a row for each part of the model."""
        total = len(self.loaded) + len(self.other_shape) + len(self.missing)
        lines = [f'{len(self.loaded)} of {total} weights of the model are loaded']
        if any(self.renamed):
            before, after = (f'"{text}"' if text else 'nothing' for text in self.renamed)
            lines[0] += f', with {after} for {before} in front of their names'
        if self.exact:
            return lines[0]
        columns = {
            'loaded': self.loaded,
            'resized': self.resized,
            'other shape': self.other_shape,
            'missing': self.missing,
            'unexpected': self.unexpected,
        }
        counts = [Counter(name.partition('.')[0] for name in names) for names in columns.values()]
        parts = list(dict.fromkeys(part for count in counts for part in count))
        width = max(map(len, parts))
        lines.append(' ' * width + ''.join(f'  {name:>11}' for name in columns))
        for part in parts[:_ROWS]:
            lines.append(f'{part:<{width}}' + ''.join(f'  {count[part]:>11}' for count in counts))
        if len(parts) > _ROWS:
            lines.append(f'... and {len(parts) - _ROWS} parts more')
        shapes = {**self.resized, **self.other_shape}
        for name, (found, wanted) in list(shapes.items())[:5]:
            lines.append(f'{name}: {found} in the file, {wanted} in the model')
        return '\n'.join(lines)


def fit_weights(weights: Mapping[str, Any], model: nn.Module) -> Fit:
    """Compare weights with a model, and give them its names.

    Names are compared without the parts that wrappers add (``module.``, ``_orig_mod.``, ...). Where
    more fit with another beginning (``model.`` of Lightning taken off, ``backbone.`` put in front
    of a tower's), and at least half of the file or of the model does, that is changed as well. LoRA
    is merged for a model without.

    Args:
        weights: By name, such as the ``state_dict`` of a checkpoint. Nothing is copied.
        model: Module that they are for; it stays as it is.

    Raises:
        ValueError: A part of the model cannot interpolate its weights.
    """
    wanted = model.state_dict()
    if not any('.lora_' in name for name in wanted):
        weights = merge_lora(weights)
    places = {plain_name(name): name for name in wanted}
    before, after = _best_beginning(
        {plain_name(name): value for name, value in weights.items()},
        {plain: wanted[name] for plain, name in places.items()},
    )
    named = {}
    for name, value in weights.items():
        plain = plain_name(name)
        changed = after + plain.removeprefix(before) if plain.startswith(before) else plain
        named[places.get(changed, name)] = value
    final = _as_loaded(model, named)
    shapes = {
        name: (_shape(named.get(name)), _shape(wanted[name])) for name in final if name in wanted
    }
    loaded = [name for name in wanted if name in final and _shape(final[name]) == shapes[name][1]]
    return Fit(
        weights=named,
        loaded=loaded,
        resized={name: shapes[name] for name in loaded if len({*shapes[name]}) > 1},
        other_shape={name: shapes[name] for name in wanted if name in final.keys() - {*loaded}},
        # Without LoRA in the file, that of the model begins without effect.
        missing=[name for name in wanted if name not in final and '.lora_' not in name],
        unexpected=[name for name in final if name not in wanted],
        renamed=(before, after),
    )


def beginnings(names: Iterable[str]) -> list[str]:
    """Where names may begin: nothing, their first part, their first two; each once."""
    split = (name.split('.')[:-1][:2] for name in names)
    found = (f'{".".join(parts[:n])}.' for parts in split for n in range(1, len(parts) + 1))
    return ['', *dict.fromkeys(found)]


def _shape(value: Any) -> tuple | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _as_loaded(model: nn.Module, weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights as the parts of a model change them on loading (PyTorch's pre-hooks)."""
    final = dict(weights)
    for name, module in model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            try:
                hook(final, f'{name}.' if name else '', {}, True, [], [], [])
            except Exception as error:  # such as for a position embedding of one dimension
                raise ValueError(
                    f'{type(module).__name__} ({name or "the model"}) cannot take the weights of '
                    f'the file: {error}'
                ) from error
    return final


def _best_beginning(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, str]:
    """The beginning to take off the names and the one to put in front, so that most fit."""
    parts = sorted({name.partition('.')[0] for name in wanted})
    best, most = ('', ''), _count_fits(given, wanted, '')
    for before in beginnings(given):
        below = {
            name.removeprefix(before): value
            for name, value in given.items()
            if name.startswith(before)
        }
        # The weights of one part of the model are never those of another.
        own = before.partition('.')[0] in parts
        for after in ['', *(f'{part}.' for part in parts if not own)]:
            fits = _count_fits(below, wanted, after)
            if fits > most and 2 * fits >= min(len(given), len(wanted)):
                best, most = (before, after), fits
    return best


def _count_fits(given: Mapping[str, Any], wanted: Mapping[str, Any], after: str) -> int:
    return sum(
        after + name in wanted and _shape(wanted[after + name]) == _shape(value)
        for name, value in given.items()
    )
