"""Tests of retrieval between images and captions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmslip.evaluation import RetrievalRecall, retrieval_ranks, wilson_interval
from mmslip.registry import METRICS
from tests.distributed.pool import run
from tests.evaluation.samples import evaluate


def collection(number: int, seed: int = 0, noise: float = 0.8) -> list[dict]:
    """Images with one to four captions that resemble them."""
    generator = torch.Generator().manual_seed(seed)
    images = F.normalize(torch.randn(number, 8, generator=generator), dim=1)
    samples = []
    for index, image in enumerate(images):
        texts = image + noise * torch.randn(1 + index % 4, 8, generator=generator)
        samples.append(dict(task='pairs', image_feat=image, text_feat=F.normalize(texts, dim=1)))
    return samples


def flatten(samples: list[dict]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = torch.stack([sample['image_feat'] for sample in samples])
    texts = torch.cat([sample['text_feat'] for sample in samples])
    owners = [i for i, sample in enumerate(samples) for _ in sample['text_feat']]
    return images, texts, torch.tensor(owners)


def naive_recall(samples: list[dict], topk: tuple[int, ...]) -> dict[str, float]:
    """Sort everything, for each image and each caption."""
    images, texts, owners = (part.double().numpy() for part in flatten(samples))
    found = {f'retrieval/pairs_{way}_r{k}': [] for way in ('i2t', 't2i') for k in topk}
    for index, image in enumerate(images):
        order = sorted(range(len(texts)), key=lambda j: -(image @ texts[j]))
        for k in topk:
            found[f'retrieval/pairs_i2t_r{k}'].append(any(owners[j] == index for j in order[:k]))
    for text, owner in zip(texts, owners, strict=True):
        order = sorted(range(len(images)), key=lambda i: -(images[i] @ text))
        for k in topk:
            found[f'retrieval/pairs_t2i_r{k}'].append(owner in order[:k])
    return {name: 100 * np.mean(hits) for name, hits in found.items()}


def values(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(('_low', '_high'))}


@pytest.mark.parametrize('block', [1024, 7])  # 7 divides neither images nor captions
def test_equals_sorting(block, monkeypatch):
    monkeypatch.setattr('mmslip.evaluation.retrieval_recall._BLOCK', block)
    samples = collection(41)
    metric = METRICS.build(dict(type='mmslip.RetrievalRecall', topk=(1, 2, 5, 10)))
    got = evaluate(metric, samples)
    expected = naive_recall(samples, (1, 2, 5, 10))
    assert values(got) == pytest.approx(expected)
    assert 10 < expected['retrieval/pairs_t2i_r1'] < expected['retrieval/pairs_t2i_r10'] < 100
    assert expected['retrieval/pairs_i2t_r1'] != expected['retrieval/pairs_t2i_r1']
    for name, value in expected.items():
        assert got[f'{name}_low'] < value < got[f'{name}_high']


def test_by_hand():
    """Image 0 has two captions, one of which is closer to image 1."""
    angle = torch.deg2rad(torch.tensor([0.0, 90.0, 10.0, 70.0, 60.0]))
    rows = torch.stack([angle.cos(), angle.sin()], dim=1)
    images, texts = rows[:2], rows[2:]  # captions at 10 and 70 degrees; at 60
    to_text, to_image = retrieval_ranks(images, texts, torch.tensor([0, 0, 1]))
    assert to_text.tolist() == [0, 1]  # the caption at 70 degrees is closer to image 1 than at 60
    assert to_image.tolist() == [0, 1, 0]


def test_planted_and_opposite_embeddings():
    eye = torch.eye(6)
    samples = [dict(task='a', image_feat=row, text_feat=row.expand(2, -1)) for row in eye]
    assert set(values(evaluate(RetrievalRecall(), samples)).values()) == {100}
    opposite = [dict(task='a', image_feat=row, text_feat=-row.expand(2, -1)) for row in eye]
    got = values(evaluate(RetrievalRecall(topk=(1, 5, 6)), opposite))
    assert [got[f'retrieval/a_t2i_r{k}'] for k in (1, 5, 6)] == [0, 0, 100]
    assert [got[f'retrieval/a_i2t_r{k}'] for k in (1, 5, 6)] == [0, 0, 0]  # ten captions before


def test_equal_embeddings_earn_nothing():
    """A collapsed model, and two images with the same caption, in spite of rounding."""
    generator = torch.Generator().manual_seed(1)
    row = F.normalize(torch.randn(300, generator=generator), dim=0)
    collapsed = [dict(task='a', image_feat=row, text_feat=row[None])] * 50
    assert set(values(evaluate(RetrievalRecall(topk=(1, 10)), collapsed)).values()) == {0}
    samples = collection(30, noise=0)
    samples[4]['text_feat'] = samples[9]['text_feat'][:1].clone()
    ranks, _ = retrieval_ranks(*flatten(samples))
    assert ranks[9] == 1
    assert ranks.tolist().count(0) == 28


def test_nan_never_counts():
    samples = collection(4, noise=0)
    samples[1]['image_feat'] = torch.full((8,), torch.nan)
    samples[2]['text_feat'] = torch.full((3, 8), torch.nan)
    got = values(evaluate(RetrievalRecall(topk=(1, 100)), samples))
    # A NaN stands before every right one: images 0 and 3 have three such captions, their captions
    # one such image; images 1 and 2 are lost for good.
    assert got == {
        'retrieval/pairs_i2t_r1': 0,
        'retrieval/pairs_t2i_r1': 0,
        'retrieval/pairs_i2t_r100': 50,
        'retrieval/pairs_t2i_r100': 50,  # 1 + 4 of 1 + 2 + 3 + 4 captions
    }


def test_intervals_take_the_captions_of_an_image_together():
    eye = torch.eye(40)
    samples = [
        dict(task='a', image_feat=row, text_feat=(row if index % 2 else -row).expand(5, -1))
        for index, row in enumerate(eye)
    ]
    got = evaluate(RetrievalRecall(topk=(1,)), samples)
    low, high = wilson_interval(20, 40)
    assert got['retrieval/a_i2t_r1_low'] == 100 * low
    assert got['retrieval/a_i2t_r1_high'] == 100 * high
    # All captions of an image succeed or fail with it: 40 draws decide, not 200.
    width = got['retrieval/a_t2i_r1_high'] - got['retrieval/a_t2i_r1_low']
    assert width == pytest.approx(100 * 2 * 1.96 * np.sqrt(0.25 / 40), abs=3)


def test_other_samples_are_passed_over():
    samples = collection(5)
    other = dict(task='classes', image_feat=torch.ones(8), gt_label=torch.tensor([0]))
    got = evaluate(RetrievalRecall(), [other, *samples, other])
    assert got == evaluate(RetrievalRecall(), samples)
    with pytest.raises(ValueError, match=r'mmslip.TokenizeCaptions'):
        evaluate(RetrievalRecall(), [other])


def test_keeps_no_more_than_the_embeddings():
    batch = torch.ones(1000, 8)
    metric = RetrievalRecall()
    metric.process({}, [dict(task='a', image_feat=batch[0], text_feat=batch[:2])])
    _, image, texts = metric.results[0]
    assert image.base is None
    assert texts.base is None
    assert (image.nbytes, texts.nbytes) == (32, 64)


def share(rank: int, world_size: int) -> dict[str, float]:
    """Share of one process by mmengine's sampler: every n-th sample, filled up."""
    samples = collection(9)
    padded = samples + samples[: -len(samples) % world_size]
    metric = RetrievalRecall()
    metric.process({}, padded[rank::world_size])
    return metric.evaluate(len(samples))


@pytest.mark.dist
def test_two_processes_equal_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mmengine exchanges by files below the working folder
    expected = evaluate(RetrievalRecall(), collection(9))
    assert run(share, 2) == [expected, expected]
