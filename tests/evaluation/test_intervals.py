"""Tests of the 95 % intervals."""

import time

import numpy as np
import pytest

from mmslip.evaluation.intervals import bootstrap_interval, wilson_interval
from mmslip.evaluation.statistics import mean_per_class, ratio_of_sums, roc_auc


@pytest.mark.parametrize(
    ('successes', 'total', 'expected'),
    [
        # From the definition: ends are the p with (p - rate)^2 = z^2 p (1 - p) / n.
        (0, 10, (0, 0.2775327998628892)),  # z^2 / (n + z^2)
        (10, 10, (0.7224672001371107, 1)),
        (50, 100, (0.4038315303659956, 0.5961684696340044)),
        (1, 2, (0.0945312057342307, 0.9054687942657693)),
    ],
)
def test_wilson_by_hand(successes, total, expected):
    assert wilson_interval(successes, total) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(('successes', 'total'), [(3, 17), (1, 1000), (999, 1000), (123, 456)])
def test_wilson_ends_solve_the_equation_they_are_defined_by(successes, total):
    rate = successes / total
    low, high = wilson_interval(successes, total)
    assert low < rate < high
    for end in (low, high):
        assert abs(end - rate) / np.sqrt(end * (1 - end) / total) == pytest.approx(
            1.959963984540054
        )


@pytest.mark.parametrize('rate', [0.05, 0.3, 0.9])
def test_wilson_covers(rate):
    hits = np.random.default_rng(0).binomial(200, rate, size=2000)
    ends = np.array([wilson_interval(int(number), 200) for number in hits])
    covered = ((ends[:, 0] <= rate) & (rate <= ends[:, 1])).mean()
    assert 0.93 < covered < 0.98


def mean_of(values):
    """The mean as a function of how often each of `values` occurs."""
    return lambda counts: counts @ values / counts.sum(1)


def test_bootstrap_of_a_mean_is_the_normal_interval():
    values = np.array([0.0, 1.0, 3.0])
    counts = np.array([500, 300, 200])
    mean = counts @ values / 1000
    error = np.sqrt(counts @ (values - mean) ** 2 / 1000 / 1000)
    low, high = bootstrap_interval(mean_of(values), counts, resamples=20_000)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)


def test_bootstrap_equals_drawing_samples_one_by_one():
    values = np.array([0.0, 1.0, 5.0])
    counts = np.array([12, 5, 3])
    samples = np.repeat(values, counts)
    draws = np.random.default_rng(1).choice(samples, size=(20_000, len(samples))).mean(1)
    got = bootstrap_interval(mean_of(values), counts, resamples=20_000)
    assert got == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.06)


def test_bootstrap_is_reproducible_in_blocks(monkeypatch):
    arguments = (mean_of(np.arange(3)), np.array([3, 4, 5]))
    whole = bootstrap_interval(*arguments)
    assert bootstrap_interval(*arguments) == whole
    assert bootstrap_interval(*arguments, seed=1) != whole
    monkeypatch.setattr('mmslip.evaluation.intervals._BLOCK', 7)
    assert bootstrap_interval(*arguments) == whole


def test_bootstrap_leaves_out_where_the_statistic_is_undefined():
    def first_of_two(counts):
        return np.where(counts[:, 0] > 0, 2.0, np.nan)

    assert bootstrap_interval(first_of_two, np.array([1, 1])) == (2.0, 2.0)


def test_bootstrap_covers_the_mean_of_classes():
    rates = np.array([0.2, 0.5, 0.9])
    generator = np.random.default_rng(2)
    labels = np.repeat(np.arange(3), [200, 80, 40])
    covered = 0
    for _ in range(200):
        value, low, high = mean_per_class(generator.random(320) < rates[labels], labels)
        assert low < value < high
        covered += low <= rates.mean() <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_captions_of_an_image_are_drawn_together():
    """Ten copies of each outcome must not make an interval narrower."""
    hits = np.random.default_rng(3).integers(0, 2, 300)
    once = ratio_of_sums(hits, np.ones(300, int))
    copied = ratio_of_sums(10 * hits, np.full(300, 10))
    assert copied == pytest.approx(once)
    unequal = ratio_of_sums(np.array([1, 0]), np.array([1, 3]))
    assert unequal == (0.25, 0, 1)


def naive_auc(margins, labels):
    differences = np.subtract.outer(margins[labels == 1], margins[labels == 0])
    return np.mean((differences > 0) + (differences == 0) / 2)


def test_roc_auc_by_pairs():
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 2, 60)
    margins = generator.integers(0, 8, 60) + labels
    value, low, high = roc_auc(margins, labels)
    assert value == pytest.approx(naive_auc(margins, labels))
    draws = []
    for _ in range(1000):
        drawn = generator.integers(0, 60, 60)
        draws.append(naive_auc(margins[drawn], labels[drawn]))
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


def test_roc_auc_interval_of_more_scores_than_levels(monkeypatch):
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 2, 800)
    margins = generator.normal(size=800) + labels
    fine = roc_auc(margins, labels)
    monkeypatch.setattr('mmslip.evaluation.statistics._LEVELS', 100)
    coarse = roc_auc(margins, labels)
    assert coarse[0] == fine[0]
    assert coarse[1:] == pytest.approx(fine[1:], abs=3e-3)
    assert coarse[1:] != fine[1:]


def test_cost_is_bounded_for_a_million_samples():
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 2, 1_000_000)
    start = time.process_time()
    value, low, high = roc_auc(generator.normal(size=1_000_000) + labels, labels)
    assert time.process_time() - start < 20
    assert value - 0.002 < low < value < high < value + 0.002
