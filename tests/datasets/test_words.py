"""Captions with words left out or in another order."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmslip.datasets import ImageTextDataset, VisitSampler
from mmslip.datasets.transforms import DropStopWords, DropWords, SwapWords, TokenizeCaption
from mmslip.utils import seeded

CAPTION = 'A dog of the neighbour runs, with a ball'
STEPS = [
    dict(type='mmslip.DropStopWords', prob=0.5),
    dict(type='mmslip.DropWords', prob=0.5, share=0.3),
    dict(type='mmslip.SwapWords', prob=0.5),
]


def changed(transform, text=CAPTION, times: int = 1) -> list:
    with seeded(0):
        return [transform(dict(text=text))['text'] for _ in range(times)]


def test_stop_words():
    assert changed(DropStopWords(1)) == ['dog neighbour runs, ball']
    assert changed(DropStopWords(1), 'With it.') == ['With it.']  # nothing would be left
    assert changed(DropStopWords(1, words=['dog']), 'ein Dog') == ['ein']
    assert changed(DropStopWords(1), ['a cat', 'of']) == [['cat', 'of']]


def test_dropped_words():
    """Each word is left out as often as ``share`` says, and order is kept."""
    words, times = CAPTION.split(), 2000
    found = [text.split() for text in changed(DropWords(1, share=0.2), times=times)]
    kept = Counter(word for text in found for word in text)
    for word in set(words):  # 1,600 expected of each place, standard deviation 18
        assert kept[word] / words.count(word) == pytest.approx(0.8 * times, abs=80)
    places = {word: place for place, word in enumerate(words)}
    for text in found[:50]:
        order = [places[word] for word in text if words.count(word) == 1]
        assert order == sorted(order)
    assert changed(DropWords(1, share=1)) == [CAPTION]


def test_swapped_words():
    for text in changed(SwapWords(1), times=50):
        words = text.split()
        assert Counter(words) == Counter(CAPTION.split())
        assert sum(a != b for a, b in zip(words, CAPTION.split(), strict=True)) in (0, 2)
    assert changed(SwapWords(1), 'two words') == ['words two']
    assert changed(SwapWords(1), '小狗在跑') == ['小狗在跑']


@pytest.mark.parametrize('kind', [DropStopWords, DropWords, SwapWords])
def test_probability_is_that_of_a_caption(kind):
    assert changed(kind(0), times=20) == 20 * [CAPTION]
    arguments = dict(share=0.5) if kind is DropWords else {}
    texts = changed(kind(0.3, **arguments), text=['a red car of mine'] * 1000)[0]
    same = texts.count('a red car of mine')
    assert same == pytest.approx(700, abs=65)  # standard deviation 14; few changes change nothing


def test_tokens_are_of_the_changed_caption_and_text_is_not():
    """So a caption keeps the key by which it is known in a batch."""
    transform = TokenizeCaption(augment=[dict(type='mmslip.DropStopWords', prob=1)], number=2)
    out = transform(dict(text=['a cat', 'a dog of paper']))
    assert sorted(out['text']) == ['a cat', 'a dog of paper']
    changed = [text.replace('a ', '').replace('of ', '') for text in out['text']]
    assert out['text_ids'].equal(transform.tokenizer(changed))


def test_draws_follow_the_visit(tmp_path: Path):
    """Seed and epoch say what is drawn, whatever was drawn before; another epoch differs."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    captions = '["one dog in the park", "two dogs of a man", "a third dog on it"]'
    (tmp_path / 'a.jsonl').write_text(f'{{"image": "a.png", "caption": {captions}}}\n')
    tokenize = dict(type='mmslip.TokenizeCaption', number=2, weights=(3, 1), augment=STEPS)
    dataset = ImageTextDataset(
        data_root=str(tmp_path),
        ann_file='a.jsonl',
        pipeline=[dict(type='mmslip.LoadImage'), tokenize, dict(type='mmslip.PackSLIPInputs')],
    )

    def visit(epoch: int) -> torch.Tensor:
        sampler = VisitSampler(dataset, seed=3)
        sampler.set_epoch(epoch)
        np.random.rand(epoch)
        return dataset[next(iter(sampler))]['inputs']['text']

    first = [visit(epoch) for epoch in range(8)]
    for epoch in reversed(range(8)):
        assert visit(epoch).equal(first[epoch])
    assert len({tuple(ids.flatten().tolist()) for ids in first}) >= 7
