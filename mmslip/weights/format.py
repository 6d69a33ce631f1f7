"""The interface between mmslip's weights and another library's."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmslip.weights.preprocessing import Preprocessing
from mmslip.weights.rules import Rule, to_ours, to_theirs
from mmslip.weights.spec import ForeignText, ModelSpec, TextSpec, VisionSpec

__all__ = ['Format', 'as_json', 'require', 'require_clip']


class Format:
    """How a library, or a code base, names its weights and describes its models.

    A subclass sets the attributes and fills the methods that raise ``NotImplementedError``.

    Attributes:
        name: As on the command line.
        title: As in messages.
        rules: Its names and ours.
        no_embedding: Patterns of its names that no embedding depends on, which may be left out.
        ours_left_out: The same of our names, on export.
        weights_file: Name of the weights in a folder.
        description_file: Name of the JSON description of the model in a folder.
        rounding: Of its centre crop, see :class:`Preprocessing`; ``None`` if it has all.
        needs_text: Whether it has no image tower alone.
        library: Its name on model hubs.
        usage: Python that loads a ``{folder}``, for the model card; ``None`` for no card.
    """

    name: str
    title: str
    rules: tuple[Rule, ...] = ()
    no_embedding: tuple[str, ...] = ()
    ours_left_out: tuple[str, ...] = (r'ssl\..+|head\.logit_bias',)
    weights_file = 'model.safetensors'
    description_file: str | None = None
    rounding: str | None = None
    needs_text = False
    library: str | None = None
    usage: str | None = None

    def recognise(self, names: Collection[str]) -> bool:
        """Whether weights of these names have this format and no other."""
        raise NotImplementedError

    def read_spec(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> ModelSpec:
        """The architecture of weights that have our names already.

        Args:
            weights: As :meth:`to_mmslip` returns them.
            description: The JSON description of this format, where it has one and it is at hand.
            activation: As given by the user, where the files do not say.

        Raises:
            KeyError: The description lacks a key.
            ValueError: Something needed is unknown; the message says how to give it.
        """
        raise NotImplementedError

    def rules_for(self, spec: ModelSpec) -> tuple[Rule, ...]:
        """The rules of export, where the format has several layouts."""
        return self.rules

    def counterpart(self, spec: ModelSpec) -> ModelSpec:
        """The architecture under which the library has this model: it, or with a neutral norm."""
        return spec

    def check(self, spec: ModelSpec) -> None:
        """Raise ``ValueError`` where the library has no such model, a :meth:`counterpart`."""

    def describe(self, spec: ModelSpec) -> dict[str, str]:
        """Text files beside the weights, by name; all that a folder needs to be loaded and used."""
        return {}

    def checkpoint(self, weights: dict[str, Tensor], spec: ModelSpec) -> dict:
        """Content of a ``.pth`` file of this format."""
        return weights

    def to_mmslip(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Weights under our names, and those of theirs that are left out.

        Raises:
            ValueError: Embeddings depend on a weight that mmslip has no place for.
        """
        ours, unknown = to_ours(weights, self.rules)
        return ours, _only(unknown, self.no_embedding, f'{self.title} that mmslip has no place for')

    def from_mmslip(
        self, weights: Mapping[str, Tensor], spec: ModelSpec
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Weights under their names, and those of ours that are left out.

        Raises:
            ValueError: The library has no such model, or no place for a weight of its towers.
        """
        self.check(spec)
        theirs, unknown = to_theirs(weights, self.rules_for(spec))
        reason = f'mmslip that {self.title} has no place for'
        return theirs, _only(unknown, self.ours_left_out, reason)


def _only(unknown: list[str], allowed: Collection[str], reason: str) -> list[str]:
    """Return ``unknown`` if every name of it matches one of ``allowed``."""
    vital = [
        name for name in unknown if not any(re.fullmatch(pattern, name) for pattern in allowed)
    ]
    if vital:
        more = f' and {len(vital) - 5} more' if len(vital) > 5 else ''
        raise ValueError(
            f'There are weights of {reason}: {", ".join(vital[:5])}{more}. Without them the '
            'embeddings would be others, so nothing is converted.'
        )
    return unknown


_PARTS = {VisionSpec: 'vision tower', TextSpec: 'text tower', Preprocessing: 'preprocessing'}

_REMEDIES = {Preprocessing: ' Evaluate in that way: change the test_pipeline of --config.'}


def require(
    title: str, part: VisionSpec | TextSpec | ForeignText | Preprocessing, **wanted: Any
) -> None:
    """Raise ``ValueError`` unless a part of a model has these values, or one of a set of them."""
    if isinstance(part, ForeignText):
        raise ValueError(
            f'{title} has no text tower like {part.tower["type"]} with {part.tokenizer}: convert '
            'the model for mmslip.'
        )
    for key, value in wanted.items():
        found = getattr(part, key)
        if found != value and not (isinstance(value, set) and found in value):
            names = ' or '.join(map(repr, sorted(value))) if isinstance(value, set) else repr(value)
            raise ValueError(
                f'{title} needs {key} {names} in its {_PARTS[type(part)]}; this model has '
                f'{found!r}, so it cannot be written for it without loss.'
                + _REMEDIES.get(type(part), '')
            )


def require_clip(title: str, spec: ModelSpec) -> None:
    """Raise ``ValueError`` unless class token and end token are read, through a matrix each."""
    require(title, spec.vision, pooling='class_token')
    if spec.text_bias:
        raise ValueError(
            f'{title} has no bias in the projection of texts: leave out model.text_neck.bias.'
        )


def as_json(content: dict) -> str:
    return json.dumps(content, indent=2) + '\n'
