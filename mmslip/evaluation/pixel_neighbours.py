"""The baseline that has learned nothing: the nearest training image by its pixels."""

from collections.abc import Iterable, Sequence

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from mmslip.datasets.base import load_picture

__all__ = ['pixel_accuracy']


def pixel_accuracy(
    train: Dataset, part: Dataset, side: int = 16, topk: Sequence[int] = (1, 5)
) -> dict[int, float]:
    """Top-k accuracy of naming images as the training images that look most alike.

    A name is as close to an image as the closest training image that bears it, by the correlation
    of ``side x side`` pixels. An image whose name no training image bears counts as wrong.

    Args:
        train: Images; the first caption of each is its name, and those without are left out.
        part: Images with ``gt_label``, and ``classes`` in its ``metainfo``.
        side: Images are averaged down to so many pixels.
        topk: Numbers of different names that an image may be given.

    Returns:
        Percent by ``k``.
    """
    texts = {index: train.get_data_info(index).get('text') for index in range(len(train))}
    names = {index: _name(text) for index, text in texts.items() if text}
    known = {name: number for number, name in enumerate(sorted(set(names.values())))}
    bears = torch.tensor([known[name] for name in names.values()])  # (T,)
    alike = _pixels(part, range(len(part)), side) @ _pixels(train, names, side).T  # (N, T)
    closest = alike.new_full((len(alike), len(known)), -torch.inf)
    closest = closest.scatter_reduce(1, bears.expand_as(alike), alike, 'amax')  # (N, names)
    found = closest.topk(min(max(topk), len(known))).indices  # (N, k)
    classes = [known.get(_name(name), -1) for name in part.metainfo['classes']]
    labels = [part.get_data_info(index)['gt_label'] for index in range(len(part))]
    right = found == torch.tensor([classes[label] for label in labels])[:, None]
    return {k: 100 * right[:, :k].any(1).double().mean().item() for k in topk}


def _name(texts: str | Sequence[str]) -> str:
    """The first of several captions, or synonyms of a class."""
    return texts if isinstance(texts, str) else texts[0]


def _pixels(dataset: Dataset, indices: Iterable[int], side: int) -> Tensor:
    """Images as rows of ``side * side * 3`` numbers, of mean 0 and length 1."""
    rows = [
        mmcv.imresize(load_picture(dataset, index), (side, side), interpolation='area').ravel()
        for index in indices
    ]
    pixels = torch.from_numpy(np.stack(rows)).float()
    return F.normalize(pixels - pixels.mean(1, keepdim=True), dim=1)
