"""The commands that evaluate retrieval on COCO and Flickr30k."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmslip.datasets import CLIPTokenizer
from tests.evaluation.conftest import CLASSES
from tests.evaluation.fixtures import Painter

WORDS = ['dog', 'cat', 'bird']


def write(root: Path, folder: str, file: str) -> None:
    """Three images, told by their colours, and captions that start with the word of their image."""
    painter = Painter(root, 'stl10')
    entries = []
    for number, word in enumerate(WORDS):
        painter.image(f'{folder}/{number}.jpg', painter.names[number])
        captions = [dict(raw=f'{word} in picture {way}') for way in range(5 + number)]
        place = dict(filename=f'{number}.jpg')
        if file == 'dataset_coco.json':
            place['filepath'] = folder
        entries.append(dict(place, split='test', sentences=captions))
    (root / file).write_text(json.dumps(dict(images=entries)))


def features_of_words(_: object, ids: Tensor) -> Tensor:
    """One-hot number of the first word."""
    first = CLIPTokenizer()(WORDS)[:, 1].tolist()
    return torch.eye(CLASSES)[[first.index(token) for token in ids[:, 1].tolist()]]


@pytest.mark.parametrize('name', ['coco', 'flickr30k'])
def test_a_planted_model_finds_every_caption_and_image(
    name: str,
    evaluate: Callable[..., dict],
    plant: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = dict(coco='val2014', flickr30k='flickr30k-images')[name]
    write(tmp_path / 'data' / name, folder, f'dataset_{name}.json')
    plant()
    monkeypatch.setattr('mmslip.models.SLIP.encode_text', features_of_words)
    # Five captions are the same to this model, and all of them are right.
    figures = evaluate(f'retrieval/{name}.py', 'test_dataloader.dataset.samples=3')
    keys = [f'retrieval/{name}_{way}_r1' for way in ('i2t', 't2i')]
    assert [figures[key] for key in keys] == [100, 100]


def test_real_towers(evaluate: Callable[..., dict], tmp_path: Path) -> None:
    write(tmp_path / 'data' / 'coco', 'val2014', 'dataset_coco.json')
    figures = evaluate('retrieval/coco.py', 'test_dataloader.dataset.samples=3')
    assert figures['retrieval/coco_t2i_r5'] == 100  # there are but three images
