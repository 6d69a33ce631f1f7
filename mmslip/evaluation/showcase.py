"""Pictures of a task's results: worst classes, retrieval, similarities."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from mmslip.datasets.base import load_picture
from mmslip.evaluation.predictions import Predictions, class_names, spread

__all__ = ['save_showcase']

# Bounds of what is kept, whatever the size of the set: some 90 thumbnails a task.
_WORST, _EXAMPLES, _RIVALS = 6, 3, 3
_ROWS, _COLUMNS = 8, 8
_SIDE = 72  # pixels of a thumbnail's long side


def save_showcase(folder: Path, part: Dataset, found: Predictions, about: dict[str, Any]) -> None:
    """Write ``showcase.json`` and the thumbnails that it names, in place of older ones.

    The file holds ``about`` and

    - ``worst``, where there are classes: those of the lowest accuracy (then the lowest margin),
      what they were taken for, and images that were;
    - ``retrieval``: texts with the images closest to them, and whether each is right;
    - ``similarity``: cosines of texts (rows) and an image of each (columns), of which the diagonal
      are the true pairs.

    Args:
        folder: Where to write; made if necessary.
        part: The data set.
        found: Predictions on it.
        about: What identifies the evaluation.
    """
    content = dict(about, samples=len(found.index))
    if found.prediction is not None:
        names = class_names(part)
        content.update(classes=len(names), worst=_worst(found, names))
    content.update(retrieval=_retrieval(found), similarity=_similarity(found))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.jpg'):
        old.unlink()
    for name in _images(content):
        picture = load_picture(part, int(name.removesuffix('.jpg')))
        scale = _SIDE / max(picture.shape[:2])
        size = tuple(max(1, round(side * min(scale, 1))) for side in picture.shape[1::-1])
        small = mmcv.imresize(picture, size, interpolation='area')
        Image.fromarray(small).save(folder / name, quality=85)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    (folder / 'showcase.json').write_text(text + '\n', encoding='utf-8')


def _worst(found: Predictions, names: list[str]) -> list[dict[str, Any]]:
    number = np.bincount(found.label, minlength=len(names))
    right = np.bincount(found.label, found.margin > 0, minlength=len(names))
    margin = np.bincount(found.label, np.nan_to_num(found.margin, nan=-2), minlength=len(names))
    present = np.flatnonzero(number)
    accuracy, margin = right[present] / number[present], margin[present] / number[present]
    worst = []
    for place in np.lexsort((margin, accuracy))[:_WORST]:
        if accuracy[place] == 1:
            break
        label = present[place]
        wrong = np.flatnonzero((found.label == label) & ~(found.margin > 0))
        rivals = Counter(found.prediction[wrong].tolist()).most_common(_RIVALS)
        clearest = wrong[np.argsort(np.nan_to_num(found.margin[wrong], nan=-2), kind='stable')]
        worst.append(
            dict(
                name=names[label],
                samples=int(number[label]),
                accuracy=round(100 * float(accuracy[place]), 2),
                taken_for=[
                    dict(name=names[rival], share=round(100 * times / int(number[label]), 2))
                    for rival, times in rivals
                ],
                examples=[
                    dict(image=_file(found, row), taken_for=names[found.prediction[row]])
                    for row in clearest[:_EXAMPLES]
                ],
            )
        )
    return worst


def _retrieval(found: Predictions) -> list[dict[str, Any]]:
    return [
        dict(
            text=found.texts[query],
            images=[
                dict(
                    image=_file(found, row),
                    score=_number(found.scores[row, query]),
                    right=bool(found.label[row] == found.queries[query]),
                )
                for row in found.best(query, _COLUMNS)
            ],
        )
        for query in spread(len(found.queries), _ROWS)
    ]


def _similarity(found: Predictions) -> dict[str, Any]:
    """One image for each query that has one."""
    labels, rows = np.unique(found.label, return_index=True)
    first = dict(zip(labels.tolist(), rows.tolist(), strict=True))
    chosen = [query for query, label in enumerate(found.queries) if label in first]
    images = [first[found.queries[query]] for query in chosen]
    return dict(
        texts=[found.texts[query] for query in chosen],
        images=[_file(found, row) for row in images],
        cosines=[[_number(found.scores[row, query]) for row in images] for query in chosen],
    )


def _file(found: Predictions, row: int) -> str:
    return f'{found.index[row]}.jpg'


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


def _images(content: dict[str, Any]) -> set[str]:
    """Every thumbnail that is named."""
    shown = [content['similarity']['images']]
    for row in content['retrieval']:
        shown.append([hit['image'] for hit in row['images']])
    for row in content.get('worst', []):
        shown.append([example['image'] for example in row['examples']])
    return set().union(*shown)
