"""Published results of the paper's authors, for their own code, as data."""

import json
from functools import cache
from pathlib import Path

__all__ = ['load_published']


@cache
def load_published() -> dict[str, dict]:
    """Published models by the name of their config, in the paper's order.

    The figures are those of Mu et al. (SLIP, ECCV 2022, arXiv 2112.12750), measured by the authors
    with their own code and given without intervals.

    Returns:
        ``method``, ``backbone``, ``data``, ``epochs`` and ``results`` of each model: percentages by
        the key that this library's metrics use for them, such as ``zero_shot/food101_top1``,
        ``linear/imagenet_top1``, ``finetune/imagenet_top1`` and ``retrieval/coco_i2t_r1``.
    """
    path = Path(__file__).parent / 'data' / 'published.json'
    models = json.loads(path.read_text(encoding='utf-8'))['models']
    return {model.pop('name'): model for model in models}
