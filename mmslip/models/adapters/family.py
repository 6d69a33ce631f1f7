"""What the adapter of a library has to say."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmslip.models.adapters.facts import Facts
from mmslip.models.adapters.rules import Rule, to_ours, to_theirs

__all__ = ['Family', 'require']


class Family:
    """A library, or a code base, whose weights mmslip reads and writes.

    An adapter sets the attributes and fills the methods that raise ``NotImplementedError``.

    Attributes:
        name: As on the command line.
        title: As in messages.
        rules: Its names and ours.
        no_embedding: Patterns of its names that no embedding depends on, which may be left out.
        ours_left_out: The same of our names, for the way out.
        weights_file: Name of its weights in a folder.
        description_file: Name of the description of the model in a folder.
    """

    name: str
    title: str
    rules: tuple[Rule, ...] = ()
    no_embedding: tuple[str, ...] = ()
    ours_left_out: tuple[str, ...] = (r'ssl\..+|head\.logit_bias',)
    weights_file = 'model.safetensors'
    description_file: str | None = None

    def recognise(self, names: Collection[str]) -> bool:
        """Whether weights of these names are this family's and no other's."""
        raise NotImplementedError

    def facts(
        self,
        weights: Mapping[str, Tensor],
        description: Mapping[str, Any] | None,
        activation: str | None,
    ) -> Facts:
        """Facts of weights that have our names already.

        Args:
            weights: As :meth:`to_mmslip` returns them.
            description: The family's JSON description, where it has one and it is at hand.
            activation: As given by the user, where files of the family do not tell.

        Raises:
            ValueError: Something needed is not told; the message says how to give it.
        """
        raise NotImplementedError

    def rules_for(self, facts: Facts) -> tuple[Rule, ...]:
        """The rules of the way out, where the family has several layouts."""
        return self.rules

    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` where this family has no model of these facts."""

    def files(self, facts: Facts) -> dict[str, str]:
        """Text files beside the weights, by name."""
        return {}

    def checkpoint(self, weights: dict[str, Tensor], facts: Facts) -> dict:
        """What a ``.pth`` file of this family holds."""
        return weights

    def to_mmslip(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Weights under our names, and those of theirs that are left out.

        Raises:
            ValueError: Embeddings depend on a weight that mmslip has no place for.
        """
        ours, unknown = to_ours(weights, self.rules)
        return ours, _only(unknown, self.no_embedding, f'{self.title} that mmslip has no place for')

    def from_mmslip(
        self, weights: Mapping[str, Tensor], facts: Facts
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Weights under their names, and those of ours that are left out.

        Raises:
            ValueError: The family has no such model, or no place for a weight of its towers.
        """
        self.check(facts)
        theirs, unknown = to_theirs(weights, self.rules_for(facts))
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


def require(title: str, facts: object, **wanted: Any) -> None:
    """Raise ``ValueError`` unless the attributes of ``facts`` have the wanted values."""
    for key, value in wanted.items():
        found = getattr(facts, key)
        if found != value:
            raise ValueError(
                f'{title} needs {key} {value!r} in its {type(facts).__name__.lower()} tower; this '
                f'model has {found!r}, so the weights cannot be written for it without loss.'
            )


def as_json(content: dict) -> str:
    return json.dumps(content, indent=2) + '\n'
