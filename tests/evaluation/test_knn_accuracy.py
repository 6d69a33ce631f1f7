"""Tests of nearest-neighbour classification, and of what metrics with references share."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from mmslip.evaluation import KNNAccuracy, knn_predict, wilson_interval
from mmslip.registry import METRICS
from tests.distributed.pool import run
from tests.evaluation.samples import evaluate, samples_of


def naive_knn(features, labels, queries, k, temperature):
    """Votes of the nearest, one pair at a time."""
    predicted = []
    for query in queries:
        pairs = []
        for feature, label in zip(features, labels, strict=True):
            norms = math.sqrt(sum(query**2)) * math.sqrt(sum(feature**2))
            pairs.append((sum(query * feature) / norms, int(label)))
        votes = defaultdict(float)
        for similarity, label in sorted(pairs, reverse=True)[:k]:
            votes[label] += math.exp(similarity / temperature)
        predicted.append(max(votes, key=votes.get))
    return predicted


def clusters(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds around five directions."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, number)
    centres = np.random.default_rng(9).normal(size=(5, 6))
    return (centres[labels] + generator.normal(size=(number, 6))).astype(np.float32), labels


@pytest.mark.parametrize(('k', 'temperature'), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1), (99, 1)])
def test_equals_naive(k, temperature, monkeypatch):
    # Blocks that divide neither the references nor the queries, and hold fewer than k.
    monkeypatch.setattr('mmslip.evaluation.knn_accuracy._QUERIES', 16)
    monkeypatch.setattr('mmslip.evaluation.knn_accuracy._REFERENCES', 12)
    features, labels = clusters(90)
    queries, truth = clusters(50, seed=1)
    got = knn_predict(*map(torch.from_numpy, (features, labels, queries)), k, temperature)
    expected = naive_knn(features, labels, queries, k, temperature)
    assert got.tolist() == expected
    assert 0.4 < np.mean(got.numpy() == truth) < 0.95


def test_weights_by_hand():
    """One neighbour at cosine 1 against two at 0.8: the temperature decides."""
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    labels, query = torch.tensor([3, 7, 7]), torch.tensor([[2.0, 0.0]])
    # exp(0.2 / T) > 2 below T = 0.2 / ln 2 = 0.2885
    assert knn_predict(features, labels, query, 3, 0.28).tolist() == [3]
    assert knn_predict(features, labels, query, 3, 0.30).tolist() == [7]
    assert knn_predict(features, labels, query, 3, 1e-4).tolist() == [3]  # exp(1 / T) overflows


def test_planted_features_score_all():
    labels = np.arange(40) % 8
    samples = samples_of(np.eye(8)[labels], labels, role='reference')
    samples += samples_of(3 * np.eye(8)[labels], labels)
    got = evaluate(METRICS.build(dict(type='mmslip.KNNAccuracy', k=5)), samples)
    low, high = wilson_interval(40, 40)
    assert got == {
        'knn/digits_top1': 100,
        'knn/digits_top1_low': 100 * low,
        'knn/digits_top1_high': 100 * high,
    }


def test_tasks_and_roles_are_kept_apart():
    eye = np.eye(3)
    samples = [
        *samples_of(eye, [0, 1, 2], 'a', role='query'),
        *samples_of(eye, [1, 2, 0], 'b', role='reference'),
        dict(task='captions'),
        *samples_of(eye, [0, 1, 2], 'zero_shot_only'),
        *samples_of(eye, [0, 1, 2], 'a', role='reference'),
        *samples_of(eye, [1, 2, 1], 'b'),
    ]
    got = evaluate(KNNAccuracy(k=1), samples)
    assert {key: value for key, value in got.items() if key.endswith('top1')} == {
        'knn/a_top1': 100,
        'knn/b_top1': pytest.approx(200 / 3),
    }


def test_features_that_are_not_finite_help_nobody():
    references, queries = np.eye(4), np.eye(4)
    references[0, 1] = np.nan  # the only one of its class
    queries[1, 2] = np.inf
    samples = samples_of(references, range(4), role='reference') + samples_of(queries, range(4))
    assert evaluate(KNNAccuracy(), samples)['knn/digits_top1'] == 50
    samples = samples_of(references[:1], [0], role='reference') + samples_of(np.eye(4), range(4))
    assert evaluate(KNNAccuracy(), samples)['knn/digits_top1'] == 0


def test_keeps_no_more_than_the_features():
    """A row must not keep the batch on the device, nor carry it to another process."""
    metric = KNNAccuracy()
    metric.process({}, samples_of(np.eye(8), range(8)))
    row = metric.results[0][-1]
    assert (type(row), row.dtype, row.nbytes) == (np.ndarray, np.float32, 32)


def test_missing_parts_name_the_remedy():
    features = np.eye(3)
    with pytest.raises(ValueError, match=r"among the tasks \['digits'\].*role='reference'"):
        evaluate(KNNAccuracy(), samples_of(features, range(3)))
    with pytest.raises(ValueError, match="'digits' has references but nothing to judge"):
        evaluate(KNNAccuracy(), samples_of(features, range(3), role='reference'))
    with pytest.raises(KeyError, match="KNNAccuracy needs the field 'image_feat'"):
        evaluate(KNNAccuracy(feature='image_feat'), samples_of(features, range(3)))


def share(rank: int, world_size: int, collect_device: str) -> dict[str, float]:
    """Share of one process by mmengine's sampler: every n-th sample, filled up."""
    samples = three_tasks()
    padded = samples + samples[: -len(samples) % world_size]
    metric = KNNAccuracy(k=3, collect_device=collect_device)
    metric.process({}, padded[rank::world_size])
    return metric.evaluate(len(samples))


def three_tasks() -> list[dict]:
    features, labels = clusters(30)
    queries, truth = clusters(18, seed=2)
    samples = samples_of(queries[:1], truth[:1])  # the one that the sampler adds again
    samples += samples_of(features, labels, role='reference') + [dict(task='captions')] * 5
    return samples + samples_of(queries[1:], truth[1:])


@pytest.mark.dist
@pytest.mark.parametrize('collect_device', ['cpu', 'gpu'])
def test_two_processes_equal_one(collect_device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mmengine exchanges by files below the working folder
    samples = three_tasks()
    assert len(samples) % 2  # so that one is added
    expected = evaluate(KNNAccuracy(k=3), samples)
    assert 20 < expected['knn/digits_top1'] < 100
    assert run(share, 2, collect_device) == [expected, expected]
