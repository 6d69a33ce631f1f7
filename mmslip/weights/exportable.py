"""What a model can be written for, known from its config before it is trained."""

from collections.abc import Mapping
from typing import Any

from mmslip.weights.formats import FORMATS
from mmslip.weights.spec import ModelSpec
from mmslip.weights.spec_from_config import spec_from_config

__all__ = ['exportable']


def exportable(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Whether the model of a config can be converted, for each library.

    Args:
        config: With ``model`` and, where it has one, a test pipeline.

    Returns:
        By the name of a format, the reason why not, which says what to change; ``None`` where the
        library can have the model without loss.
    """
    try:
        spec = spec_from_config(config)
    except ValueError as error:
        return dict.fromkeys(FORMATS, str(error))
    return {name: _reason(name, spec) for name in FORMATS}


def _reason(name: str, spec: ModelSpec) -> str | None:
    target = FORMATS[name]
    try:
        target.check(target.counterpart(spec))
    except ValueError as error:
        return str(error)
    return None
