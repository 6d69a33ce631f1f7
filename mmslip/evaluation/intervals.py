"""95 % intervals of what an evaluation measures."""

import math
from collections.abc import Callable

import numpy as np

__all__ = ['bootstrap_interval', 'wilson_interval']

# 97.5 % quantile of the normal distribution.
_Z95 = 1.959963984540054
# Counts drawn at a time: 16 million of eight bytes.
_BLOCK = 2**24


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson, JASA 22, 1927).

    Unlike ``p +- 1.96 standard errors`` it stays within 0 and 1, and has a width where every sample
    or none succeeds.

    Args:
        successes: How many of the independent samples succeeded.
        total: Number of samples, at least 1.

    Returns:
        Lower and upper end, as fractions.
    """
    rate, z2 = successes / total, _Z95**2
    centre = rate + z2 / (2 * total)
    reach = _Z95 * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total**2))
    scale = 1 + z2 / total
    low, high = (centre - reach) / scale, (centre + reach) / scale
    # Exact at both extremes, where rounding would leave an end a hair off.
    return low if successes else 0.0, high if successes < total else 1.0


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    counts: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of the bootstrap (Efron & Tibshirani, 1993, chapter 13).

    Samples are not drawn one by one: those with the same outcome are interchangeable, so a resample
    is one draw of a multinomial distribution over the distinct outcomes. The cost grows with their
    number, not with that of the samples.

    Args:
        statistic: Maps how often each outcome occurs, ``(R, M)``, to values ``(R,)``; NaN where it
            is undefined.
        counts: ``(M,)``, how often each outcome was seen.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        Lower and upper end, in the unit of the statistic.
    """
    generator = np.random.default_rng(seed)
    total = int(counts.sum())
    rows = max(1, _BLOCK // len(counts))
    values = [
        statistic(generator.multinomial(total, counts / total, size=min(rows, resamples - start)))
        for start in range(0, resamples, rows)
    ]
    low, high = np.nanquantile(np.concatenate(values), [0.025, 0.975])
    return float(low), float(high)
