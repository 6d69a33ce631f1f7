"""Samples to a batch, where some have a caption and some have none."""

from typing import Any

from mmengine.dataset import default_collate
from torch import Tensor

from mmslip.registry import FUNCTIONS

__all__ = ['collate', 'count_rows']

# Inputs of the language half; all others are of the self-supervised half.
_LANGUAGE = ('image', 'text', 'keys')


@FUNCTIONS.register_module()
def collate(samples: list[dict]) -> dict:
    """Stack packed samples; those with a caption come first.

    With ``c`` captioned samples of ``B``, ``image`` is ``(c, 3, H, W)``, ``text`` ``(c, L)`` (or
    ``(c, m, L)``) and ``keys`` ``(c, 1 + m)``; everything else has ``B`` rows: ``views`` are
    ``(B, 3, h, w)`` each. So each half runs on the
    rows that it learns from, and on no others. If all samples have a caption, or none has, this is
    mmengine's ``default_collate``.

    Args:
        samples: Of :class:`mmslip.datasets.transforms.PackSLIPInputs`. One without ``text`` may
            leave ``image`` out.
    """
    captioned = [sample for sample in samples if _has_text(sample)]
    if len(captioned) in (0, len(samples)):
        return default_collate(samples)
    bare = [sample for sample in samples if not _has_text(sample)]
    batch = default_collate([_select(sample, language=False) for sample in captioned + bare])
    language = default_collate([_select(sample, language=True) for sample in captioned])
    batch['inputs'] = language['inputs'] | batch['inputs']
    return batch


def count_rows(inputs: dict | Tensor) -> tuple[int, int]:
    """Rows of a batch that have a caption, and all of its rows.

    Args:
        inputs: Those of a collated batch.
    """
    if not isinstance(inputs, dict):
        return 0, len(inputs)
    # Of a list, the first: views and images are lists of tensors of one length.
    first = [value[0] if isinstance(value, list | tuple) else value for value in inputs.values()]
    return len(inputs.get('text', ())), max(map(len, first))


def _has_text(sample: dict) -> bool:
    return 'text' in sample['inputs']


def _select(sample: dict, language: bool) -> dict[str, Any]:
    """Inputs of the language half alone, or a sample without them."""
    inputs = {
        key: value for key, value in sample['inputs'].items() if (key in _LANGUAGE) is language
    }
    return dict(inputs=inputs) if language else dict(sample, inputs=inputs)
