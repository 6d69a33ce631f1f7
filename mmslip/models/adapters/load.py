"""Foreign checkpoints wherever mmengine loads one: ``load_from``, ``init_cfg``."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmslip.models.adapters.convert import MMSlip, recognise
from mmslip.models.adapters.files import state_dict_of

__all__ = ['adapt_checkpoint']


def adapt_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> Mapping[str, Any]:
    """Give the weights of a known family our names; others are returned as they are.

    Only names and layouts are adapted: that heads, activation and pixel scale are the same is the
    config's word.

    Raises:
        ValueError: The family is known, yet the model has no counterpart in mmslip.
    """
    try:
        weights = state_dict_of(checkpoint)
    except ValueError:
        return checkpoint
    family = recognise(weights)
    if family is None or isinstance(family, MMSlip):
        return checkpoint
    command = f'python tools/model_converters/convert.py {path} FOLDER'
    try:
        ours, left_out = family.to_mmslip(weights)
    except ValueError as error:
        raise ValueError(f'{path} is of {family.title}. {error} See {command} --help.') from error
    print_log(
        f'{path} is of {family.title}: {len(ours)} weights are loaded under the names of mmslip'
        + (f', without {", ".join(left_out)}. ' if left_out else '. ')
        + 'Heads, activation (GELU or QuickGELU) and pixel scale are those of your config; '
        f'`{command}` writes the right config.',
        logger='current',
        level=logging.WARNING,
    )
    return dict(state_dict=ours, meta={})
