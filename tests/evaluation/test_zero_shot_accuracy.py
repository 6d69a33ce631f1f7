"""Tests of the accuracy of zero-shot classification."""

import math

import numpy as np
import pytest
import torch

from mmslip.evaluation import ZeroShotAccuracy
from mmslip.registry import METRICS


def evaluate(
    scores: torch.Tensor, labels: list[int], topk: tuple[int, ...] = (1, 5), task: str = 'val'
) -> dict[str, float]:
    """Metrics of a table of scores, given in batches of three."""
    metric = METRICS.build(dict(type='mmslip.ZeroShotAccuracy', topk=topk))
    samples = [
        dict(pred_score=row, gt_label=torch.tensor([label]), task=task)
        for row, label in zip(scores, labels, strict=True)
    ]
    for start in range(0, len(samples), 3):
        metric.process({}, samples[start : start + 3])
    return metric.evaluate(len(samples))


def test_planted_scores() -> None:
    labels = torch.randint(20, (100,), generator=torch.Generator().manual_seed(0))
    scores = torch.rand(100, 20, generator=torch.Generator().manual_seed(1))
    scores[torch.arange(100), labels] = 2.0
    assert evaluate(scores, labels.tolist()) == {
        'zero_shot/val_top1': 100,
        'zero_shot/val_top5': 100,
    }
    scores[torch.arange(100), labels] = -1.0
    assert evaluate(scores, labels.tolist()) == {'zero_shot/val_top1': 0, 'zero_shot/val_top5': 0}


def test_ranks_by_hand() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.5, 0.9, 0.1], [0.2, 0.5, 0.1], [-0.1, -0.2, -0.3]])
    got = evaluate(scores, [0, 0, 2, 2], topk=(1, 2, 3))
    assert got == {'zero_shot/val_top1': 25, 'zero_shot/val_top2': 50, 'zero_shot/val_top3': 100}


def test_random_scores_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(4000, 20, generator=generator)
    labels = torch.randint(20, (4000,), generator=generator).tolist()
    got = evaluate(scores, labels)
    for k, chance in ((1, 0.05), (5, 0.25)):
        # Four standard deviations of a binomial.
        bound = 400 * math.sqrt(chance * (1 - chance) / 4000)
        assert abs(got[f'zero_shot/val_top{k}'] - 100 * chance) < bound


def test_ties_count_against() -> None:
    equal = torch.zeros(4, 6)
    assert evaluate(equal, [0, 1, 2, 5]) == {'zero_shot/val_top1': 0, 'zero_shot/val_top5': 0}
    pair = torch.tensor([[0.7, 0.7, 0.1]])
    got = evaluate(pair, [0], topk=(1, 2))
    assert got == {'zero_shot/val_top1': 0, 'zero_shot/val_top2': 100}


def test_scores_of_a_diverged_model_never_count() -> None:
    scores = torch.eye(8)
    scores[1] = torch.nan
    scores[2, 2] = torch.nan
    scores[3, 3] = torch.inf
    got = evaluate(scores, list(range(8)))
    assert got == {'zero_shot/val_top1': 62.5, 'zero_shot/val_top5': 62.5}


def test_nan_does_not_count_where_k_exceeds_the_classes() -> None:
    scores = torch.full((2, 3), torch.nan)
    assert evaluate(scores, [0, 1]) == {'zero_shot/val_top1': 0, 'zero_shot/val_top5': 0}


def test_nan_of_another_class_does_not_help() -> None:
    scores = torch.tensor([[0.1, torch.nan, torch.nan]])
    assert evaluate(scores, [0], topk=(1,)) == {'zero_shot/val_top1': 0}


def test_k_above_the_classes_counts_every_sample() -> None:
    got = evaluate(torch.tensor([[0.1, 0.2], [0.1, 0.2]]), [0, 1])
    assert got == {'zero_shot/val_top1': 50, 'zero_shot/val_top5': 100}


def test_tasks_are_separate() -> None:
    metric = ZeroShotAccuracy(topk=(1,))
    right, wrong = torch.tensor([0.9, 0.1]), torch.tensor([0.1, 0.9, 0.0])
    rows = [('a', right, 0), ('b', wrong, 0), ('a', right, 1), ('b', wrong, 2), ('b', wrong, 1)]
    metric.process(
        {},
        [
            dict(task=task, pred_score=row, gt_label=torch.tensor([label]))
            for task, row, label in rows
        ],
    )
    got = metric.evaluate(5)
    assert got == pytest.approx({'zero_shot/a_top1': 50, 'zero_shot/b_top1': 100 / 3})


def scores_and_labels() -> tuple[torch.Tensor, list[int]]:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(300, 12, generator=generator)
    labels = torch.randint(12, (300,), generator=generator)
    scores[torch.arange(300), labels] += 1.0  # well above chance, well below perfect
    return scores, labels.tolist()


def test_equals_sorting() -> None:
    scores, labels = scores_and_labels()
    order = np.argsort(-scores.numpy(), axis=1)
    got = evaluate(scores, labels)
    for k in (1, 5):
        hits = [label in row[:k] for row, label in zip(order, labels, strict=True)]
        assert got[f'zero_shot/val_top{k}'] == pytest.approx(100 * np.mean(hits))
    assert 30 < got['zero_shot/val_top1'] < got['zero_shot/val_top5'] < 95


def test_equals_scikit_learn() -> None:
    metrics = pytest.importorskip('sklearn.metrics', reason='scikit-learn is not installed')
    scores, labels = scores_and_labels()
    got = evaluate(scores, labels)
    for k in (1, 5):
        expected = metrics.top_k_accuracy_score(labels, scores.numpy(), k=k, labels=range(12))
        assert got[f'zero_shot/val_top{k}'] == pytest.approx(100 * expected)
