"""Figures of classification besides plain accuracy, each with its 95 % interval.

All are functions of how often each distinct outcome occurs, which makes their bootstrap cheap.
"""

import numpy as np

from mmslip.evaluation.intervals import bootstrap_interval, wilson_interval

__all__ = [
    'Figure',
    'mean_per_class',
    'names_of',
    'percent',
    'proportion',
    'ratio_of_sums',
    'roc_auc',
]

# Value, lower and upper end of the interval, as fractions.
Figure = tuple[float, float, float]

# Distinct scores that the interval of a ROC curve tells apart: bounds its cost.
_LEVELS = 5000


def percent(name: str, figure: Figure) -> dict[str, float]:
    """``NAME``, ``NAME_low`` and ``NAME_high`` of a metric, in percent."""
    return {key: 100 * value for key, value in zip(names_of(name), figure, strict=True)}


def names_of(name: str) -> tuple[str, str, str]:
    """Names of a metric and of the ends of its interval."""
    return name, f'{name}_low', f'{name}_high'


def proportion(hits: np.ndarray) -> Figure:
    """Share of ``hits`` ``(N,)`` bool, of independent samples."""
    successes, total = int(hits.sum()), len(hits)
    return successes / total, *wilson_interval(successes, total)


def ratio_of_sums(parts: np.ndarray, wholes: np.ndarray) -> Figure:
    """``sum(parts) / sum(wholes)`` of independent units, both ``(N,)`` integers.

    Several measurements of one unit (the captions of one image) are drawn together.
    """
    pairs, counts = np.unique(np.stack([parts, wholes], 1), axis=0, return_counts=True)

    def statistic(counts: np.ndarray) -> np.ndarray:  # (R, M) -> (R,)
        sums = counts @ pairs
        return sums[:, 0] / sums[:, 1]

    return float(statistic(counts[None])[0]), *bootstrap_interval(statistic, counts)


def mean_per_class(hits: np.ndarray, labels: np.ndarray) -> Figure:
    """Mean over the classes of the share of ``hits`` ``(N,)`` bool among a class's samples.

    Classes without a sample, in the data or in a resample, are left out.
    """
    num_classes = int(labels.max()) + 1
    outcomes = np.bincount(2 * labels + hits, minlength=2 * num_classes)  # miss, hit of each class

    def statistic(counts: np.ndarray) -> np.ndarray:  # (R, 2 K) -> (R,)
        counts = counts.reshape(len(counts), -1, 2)
        totals = counts.sum(-1)
        rates = counts[..., 1] / np.maximum(totals, 1)
        return rates.sum(1) / (totals > 0).sum(1)

    return float(statistic(outcomes[None])[0]), *bootstrap_interval(statistic, outcomes)


def roc_auc(margins: np.ndarray, labels: np.ndarray) -> Figure:
    """Area under the ROC curve of ``margins`` ``(N,)`` for the classes 0 and 1 in ``labels``.

    The chance that a sample of class 1 has a larger margin than one of class 0; equal margins count
    half. NaN, of a model that has diverged, counts as the worst margin for its class. The value is
    exact; for its interval, neighbours among more than 5,000 distinct margins become equal.

    Raises:
        ValueError: Only one class occurs.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError('The area under a ROC curve needs samples of both classes.')
    margins = np.where(np.isnan(margins), np.where(labels == 1, -np.inf, np.inf), margins)
    _, levels = np.unique(margins, return_inverse=True)

    def statistic(counts: np.ndarray) -> np.ndarray:  # (R, 2 M) -> (R,)
        counts = counts.reshape(len(counts), -1, 2).astype(np.float64)
        negatives, positives = counts[..., 0], counts[..., 1]
        below = negatives.cumsum(1) - negatives / 2  # of equal margins, half
        pairs = negatives.sum(1) * positives.sum(1)
        wins = (positives * below).sum(1)
        return np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0)

    def outcomes(levels: np.ndarray) -> np.ndarray:  # (N,) -> (2 M,)
        return np.bincount(2 * levels + labels, minlength=2 * int(levels.max()) + 2)

    value = float(statistic(outcomes(levels)[None])[0])
    number = int(levels.max()) + 1
    if number > _LEVELS:
        levels = levels * _LEVELS // number
    return value, *bootstrap_interval(statistic, outcomes(levels))
