"""Tests of the accuracy of zero-shot classification."""

import math

import numpy as np
import pytest
import torch

from mmslip.datasets.tasks import first_of_name
from mmslip.evaluation import ZeroShotAccuracy, wilson_interval
from mmslip.evaluation.zero_shot_accuracy import merge_names
from mmslip.registry import METRICS


def evaluate(
    scores: torch.Tensor,
    labels: list[int],
    topk: tuple[int, ...] = (1, 5),
    task: str = 'val',
    meta: dict | None = None,
) -> dict[str, float]:
    """Metrics of a table of scores, given in batches of three; intervals are left out."""
    metric = METRICS.build(dict(type='mmslip.ZeroShotAccuracy', topk=topk))
    metric.dataset_meta = meta
    samples = [
        dict(pred_score=row, gt_label=torch.tensor([label]), task=task)
        for row, label in zip(scores, labels, strict=True)
    ]
    for start in range(0, len(samples), 3):
        metric.process({}, samples[start : start + 3])
    return values(metric.evaluate(len(samples)))


def values(metrics: dict[str, float]) -> dict[str, float]:
    """The figures without their intervals, each of which must hold its figure."""
    names = [name for name in metrics if not name.endswith(('_low', '_high', 'mean'))]
    names += [name for name in metrics if name.endswith('mean') and f'{name}_low' in metrics]
    for name in names:
        assert 0 <= metrics[f'{name}_low'] <= metrics[name] <= metrics[f'{name}_high'] <= 100
    return {name: value for name, value in metrics.items() if not name.endswith(('_low', '_high'))}


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
    got = values(metric.evaluate(5))
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


def official(metric: str, task: str = 'val') -> dict:
    return dict(tasks={task: dict(metric=metric)})


def test_mean_per_class_equals_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics', reason='scikit-learn is not installed')
    scores, labels = scores_and_labels()
    labels = [label if label < 5 else 0 for label in labels]  # class 0 is the most frequent by far
    got = evaluate(scores, labels, meta=official('mean_per_class'))
    expected = 100 * metrics.recall_score(
        labels, scores.argmax(1), average='macro', labels=range(5)
    )
    assert got['zero_shot/val_mean_per_class'] == pytest.approx(expected)
    assert abs(expected - got['zero_shot/val_top1']) > 1
    assert got['zero_shot/mean'] == got['zero_shot/val_mean_per_class']


def test_mean_of_top1_and_top5():
    got = evaluate(*scores_and_labels(), meta=official('top1_top5_mean'))
    expected = (got['zero_shot/val_top1'] + got['zero_shot/val_top5']) / 2
    assert got['zero_shot/val_top1_top5_mean'] == pytest.approx(expected)
    alone = evaluate(*scores_and_labels(), topk=(3,), meta=official('top1_top5_mean'))
    assert alone['zero_shot/val_top1_top5_mean'] == pytest.approx(expected)
    assert 'zero_shot/val_top1' not in alone


@pytest.mark.parametrize('levels', [4, 10_000])  # many equal margins, or none
def test_roc_auc_equals_scikit_learn(levels):
    metrics = pytest.importorskip('sklearn.metrics', reason='scikit-learn is not installed')
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(2, (400,), generator=generator)
    margin = ((torch.rand(400, generator=generator) + 0.3 * labels) * levels).round() / levels
    got = evaluate(torch.stack([0 * margin, margin], 1), labels.tolist(), meta=official('roc_auc'))
    expected = 100 * metrics.roc_auc_score(labels, margin)
    assert got['zero_shot/val_roc_auc'] == pytest.approx(expected)
    assert got['zero_shot/mean'] == got['zero_shot/val_roc_auc']


def test_roc_auc_of_a_diverged_model_is_zero():
    scores = torch.full((4, 2), torch.nan)
    assert evaluate(scores, [0, 1, 1, 0], meta=official('roc_auc'))['zero_shot/val_roc_auc'] == 0


def test_roc_auc_needs_two_classes():
    with pytest.raises(ValueError, match=r"task 'val' is 'roc_auc'.* it has 3"):
        evaluate(torch.zeros(1, 3), [0], meta=official('roc_auc'))
    with pytest.raises(ValueError, match='both classes'):
        evaluate(torch.zeros(2, 2), [1, 1], meta=official('roc_auc'))


def test_a_single_data_set_states_its_metric():
    scores, labels = scores_and_labels()
    got = evaluate(scores, labels, meta=dict(task='val', metric='mean_per_class', classes=['a']))
    assert 'zero_shot/val_mean_per_class' in got
    assert 'zero_shot/mean' not in got
    other = evaluate(scores, labels, meta=dict(task='other', metric='mean_per_class'))
    assert other.keys() == {'zero_shot/val_top1', 'zero_shot/val_top5'}


def test_mean_over_official_metrics_of_the_tasks_judged():
    metric = ZeroShotAccuracy(topk=(5,))
    kinds = dict(a='top1', b='mean_per_class', c='top1')
    metric.dataset_meta = dict(tasks={name: dict(metric=kind) for name, kind in kinds.items()})
    scores = torch.eye(3)
    rows = [('a', 0, 0), ('a', 1, 2), ('b', 0, 0), ('b', 0, 0), ('b', 1, 1), ('b', 2, 0)]
    metric.process(
        {},
        [
            dict(task=t, pred_score=scores[i], gt_label=torch.tensor([label]))
            for t, i, label in rows
        ],
    )
    got = metric.evaluate(len(rows))
    # a: 1 of 2; b: 2/3 of class 0, all of class 1, and no sample of class 2; c: nothing seen
    assert got['zero_shot/a_top1'] == 50
    assert got['zero_shot/b_mean_per_class'] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert got['zero_shot/mean'] == pytest.approx((50 + 100 * (2 / 3 + 1) / 2) / 2)


def test_proportions_have_wilson_intervals():
    scores = torch.eye(10)
    got = ZeroShotAccuracy(topk=(1,))
    got.process(
        {},
        [
            dict(task='a', pred_score=row, gt_label=torch.tensor([min(label, 8)]))
            for label, row in enumerate(scores)
        ],
    )
    got = got.evaluate(10)
    expected = [100 * end for end in wilson_interval(9, 10)]
    assert [got['zero_shot/a_top1_low'], got['zero_shot/a_top1_high']] == expected


def test_samples_without_scores_are_passed_over():
    metric = ZeroShotAccuracy(topk=(1,))
    judged = dict(task='a', pred_score=torch.tensor([1.0, 0.0]), gt_label=torch.tensor([0]))
    reference = dict(task='b', role='reference', gt_label=torch.tensor([0]))
    metric.process({}, [reference, judged, dict(task='captions')])
    # What the sampler appended to fill up the last batch: dropped by its place, not by its content.
    metric.process({}, [dict(judged, gt_label=torch.tensor([1]))])
    assert len(metric.results) == 4
    assert values(metric.evaluate(3)) == {'zero_shot/a_top1': 100}


def test_no_scores_at_all_name_the_remedy():
    metric = ZeroShotAccuracy()
    metric.process({}, [dict(task='a', gt_label=torch.tensor([0]))])
    with pytest.raises(ValueError, match='ZeroShotHook'):
        metric.evaluate(1)


def test_classes_of_one_name_are_one() -> None:
    classes = ['crane', ('Cat', 'kitten'), ' Crane', ['kitten', 'cat'], 'cat']
    assert first_of_name(classes) == [0, 1, 0, 1, 4]
    scores = torch.tensor([[0.5, 0.2, 0.5, 0.2, 0.1], [0.1, 0.6, 0.1, 0.6, 0.7]])
    merged, labels = merge_names(scores, torch.tensor([2, 3]), classes)
    assert labels.tolist() == [0, 1]
    assert torch.isneginf(merged[:, [2, 3]]).all()
    assert torch.equal(merged[:, [0, 1, 4]], scores[:, [0, 1, 4]])
    same = merge_names(scores, labels, ['a', 'b', 'c', 'd', 'e'])
    assert same[0] is scores
