"""Tests of logistic regression on frozen features."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mmslip.evaluation import LinearProbe, fit_logistic_regression
from mmslip.evaluation.linear_probe import _every_fifth
from mmslip.registry import METRICS
from tests.evaluation.samples import evaluate, samples_of

datasets = pytest.importorskip('sklearn.datasets', reason='scikit-learn is not installed')
linear_model = pytest.importorskip('sklearn.linear_model')


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardised 8 x 8 handwritten digits: 1,200 to learn from, 597 to judge."""
    features, labels = datasets.load_digits(return_X_y=True)
    std = features[:1200].std(0)
    features = (features - features[:1200].mean(0)) / np.where(std > 0, std, 1)
    return features[:1200], labels[:1200], features[1200:], labels[1200:]


def fit(features: np.ndarray, labels: np.ndarray, l2: float, **settings: object) -> Tensor:
    rows = torch.from_numpy(features).float()
    return fit_logistic_regression(rows, torch.from_numpy(labels), 10, l2, **settings)


def probabilities(solution: Tensor, features: np.ndarray) -> np.ndarray:
    logits = torch.from_numpy(features).float() @ solution[:, :-1].T + solution[:, -1]
    return logits.softmax(dim=1).numpy()


@pytest.mark.parametrize('l2', [1.0, 0.1, 0.01])
def test_optimum_equals_scikit_learn(l2):
    features, labels, queries, truth = digits()
    other = linear_model.LogisticRegression(C=1 / (l2 * len(features)), tol=1e-6, max_iter=5000)
    other.fit(features, labels)
    got = fit(features, labels, l2)
    np.testing.assert_allclose(got[:, :-1], other.coef_, atol=1e-3)
    expected = other.predict_proba(queries)
    np.testing.assert_allclose(probabilities(got, queries), expected, atol=1e-3)
    hits = (probabilities(got, queries).argmax(1) == truth).mean()
    assert hits == other.score(queries, truth)
    assert 0.8 < hits < 1


def test_chunks_and_starts_do_not_change_the_optimum(monkeypatch):
    features, labels, *_ = digits()
    whole = fit(features, labels, 0.01)
    warm = fit(features, labels, 0.01, start=fit(features, labels, 1.0))
    monkeypatch.setattr('mmslip.evaluation.logistic_regression._LOGITS', 10 * 177)
    chunks = fit(features, labels, 0.01)
    for other in (warm, chunks):
        np.testing.assert_allclose(other[:, :-1], whole[:, :-1], atol=1e-3)


def test_start_is_left_as_it_was():
    features, labels, *_ = digits()
    start = torch.zeros(10, 65)
    fit(features, labels, 1.0, start=start)
    assert not start.any()


def probe_samples() -> list[dict]:
    features, labels, queries, truth = digits()
    features, queries = 5 * features + 100, 5 * queries + 100  # standardising takes this away
    return samples_of(features, labels, role='reference') + samples_of(queries, truth)


def test_metric_equals_scikit_learn_at_the_chosen_strength():
    got = evaluate(METRICS.build(dict(type='mmslip.LinearProbe')), probe_samples())
    features, labels, queries, truth = digits()
    l2 = got['linear/digits_l2']
    assert l2 in (0.1, 0.01, 1e-3, 1e-4)
    other = linear_model.LogisticRegression(C=1 / (l2 * len(features)), tol=1e-6, max_iter=5000)
    expected = 100 * other.fit(features, labels).score(queries, truth)
    assert got['linear/digits_top1'] == pytest.approx(expected)
    assert got['linear/digits_top1_low'] < expected < got['linear/digits_top1_high']
    assert evaluate(LinearProbe(), probe_samples()) == got


def test_sweep_takes_the_best_on_what_was_held_out():
    features, labels, *_ = digits()
    held = _every_fifth(torch.from_numpy(labels), seed=0).numpy()
    grid = (10.0, 1.0, 0.1, 1e-2, 1e-3)
    hits = [
        (probabilities(fit(features[~held], labels[~held], l2), features[held]).argmax(1)
         == labels[held]).sum()
        for l2 in grid
    ]  # fmt: skip
    assert len(set(hits)) > 2
    rows = torch.from_numpy(features).float()
    l2, _ = LinearProbe(l2=reversed(grid))._sweep(rows, torch.from_numpy(labels), 10)
    assert l2 == grid[int(np.argmax(hits))]


def test_sweep_ends_after_two_that_are_worse(monkeypatch):
    accuracy = {1.0: 3, 0.1: 5, 1e-2: 4, 1e-3: 5, 1e-4: 4, 1e-5: 4, 1e-6: 9}
    tried = []

    def pretend_to_fit(features, targets, num_classes, l2, start):
        tried.append(l2)
        return torch.tensor(l2)

    def pretend_to_predict(solution, judged):
        right = (
            torch.arange(len(judged))
            < accuracy[min(accuracy, key=lambda l2: abs(l2 - float(solution)))]
        )
        return torch.where(right, 0, 1)

    module = 'mmslip.evaluation.linear_probe'
    monkeypatch.setattr(f'{module}.fit_logistic_regression', pretend_to_fit)
    monkeypatch.setattr(f'{module}._predict', pretend_to_predict)
    l2, start = LinearProbe()._sweep(torch.zeros(50, 1), torch.zeros(50, dtype=torch.long), 2)
    assert tried == [1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5]
    assert l2 == 0.1  # of equals, the stronger
    assert float(start) == pytest.approx(0.1)


def test_held_out_part_is_a_fifth_of_each_class():
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(range(4), 50)))
    chosen = _every_fifth(labels, seed=0)
    assert labels[chosen].bincount().tolist() == [10] * 4
    assert not torch.equal(chosen, _every_fifth(labels, seed=1))
    assert torch.equal(chosen, _every_fifth(labels, seed=0))


def test_planted_features_score_all_and_random_ones_chance():
    generator = np.random.default_rng(1)
    labels, truth = generator.integers(0, 5, 400), generator.integers(0, 5, 400)
    samples = samples_of(np.eye(5)[labels], labels, role='reference')
    samples += samples_of(np.eye(5)[truth], truth)
    assert evaluate(LinearProbe(), samples)['linear/digits_top1'] == 100
    samples = samples_of(generator.normal(size=(400, 5)), labels, role='reference')
    samples += samples_of(generator.normal(size=(400, 5)), truth)
    assert evaluate(LinearProbe(), samples)['linear/digits_top1'] == pytest.approx(20, abs=8)


def test_labels_without_references_and_dimensions_without_content():
    """Classes 2 and 9 are known, 5 is not; one dimension is constant but for rounding."""
    labels, truth = np.array([2, 9] * 20), np.array([2, 9, 5])
    constant = np.full((40, 1), 0.1) + np.random.default_rng(2).normal(scale=1e-9, size=(40, 1))
    features = np.concatenate([np.where(labels == 2, -1.0, 1.0)[:, None], constant], axis=1)
    queries = np.array([[-1, 0.1], [1, 0.1], [1, 0.1]])
    samples = samples_of(features, labels, role='reference') + samples_of(queries, truth)
    assert evaluate(LinearProbe(), samples)['linear/digits_top1'] == pytest.approx(200 / 3)


def test_few_references():
    samples = samples_of(np.eye(2), [0, 1], role='reference') + samples_of(np.eye(2), [0, 1])
    got = evaluate(LinearProbe(), samples)
    assert (got['linear/digits_top1'], got['linear/digits_l2']) == (100, 1.0)
