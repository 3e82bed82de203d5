"""Confidence intervals: over the test examples of one run, and over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from bench.metrics.compare import RESAMPLES, resampled_counts

Interval = tuple[float, float]

_FEW = 256
"""Scores with at most so many distinct values are resampled by their counts."""
_BLOCK = 4_000_000
"""Draws held in memory at once."""


def bootstrap_mean(scores: ArrayLike, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The percentile bootstrap interval of a mean over test examples.

    Scores (N,) are resampled N at a time with replacement. Where they take few values (hit or miss), the counts of
    the values are drawn instead, which has the same distribution and costs nothing.

    Returns:
        (low, high), in the unit of the scores; the same for the same arguments.

    Raises:
        ValueError: no scores, one that is not finite, or a level outside (0, 1).
    """
    values = _checked(scores, level)
    if values.size == 0:
        raise ValueError("no scores to resample")
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size <= _FEW:
        drawn = rng.multinomial(values.size, counts / values.size, size=resamples)
        means = drawn @ distinct / values.size
    else:
        means = _resampled_means(values, resamples, rng)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


Statistic = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""What a test set in which example i stands ``counts[r, i]`` times measures: counts (r, N) -> (r,)."""


def bootstrap(
    statistic: Statistic, examples: int, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """The recentred percentile bootstrap interval of what is no mean over test examples, such as mAP and mIoU.

    Average precision gains from repeated images: a copy of a hit stands beside it and lifts the precision of both. So
    its resamples lie above the value of the test set itself (on 135 images by points), and plain percentiles may
    exclude that value. Their spread is right, their place is not: the percentiles are shifted by what the mean of the
    resamples exceeds the value (the bootstrap's estimate of bias; Efron and Tibshirani, 1993, section 10.2, taken out
    once), and the interval contains the value. A mean over examples has no such bias: see :func:`bootstrap_mean`.

    Uses the resamples of :func:`bench.metrics.compare.resampled_counts`, which all rows of a table share.

    Raises:
        ValueError: no examples, or a level outside (0, 1).
    """
    if examples < 1:
        raise ValueError("no examples to resample")
    _checked([], level)
    values = np.concatenate([statistic(counts) for counts in resampled_counts(examples, resamples, seed)])
    return _around(of_all(statistic, examples), values, level)


def of_all(statistic: Statistic, examples: int) -> float:
    """What the test set itself measures: every example once."""
    return float(statistic(np.ones((1, examples), np.float32))[0])


def column(statistic: Statistic, examples: int, chance: float) -> dict[str, float | int | str]:
    """One column of a result, in %: the statistic of the test set itself and its 95 % bootstrap interval.

    The statistic and ``chance``, which is what the trivial predictor gets, are from 0 to 1.
    """
    return _column(of_all(statistic, examples), bootstrap(statistic, examples), examples, chance)


def columns(
    statistics: Statistic, examples: int, chances: Sequence[float]
) -> list[dict[str, float | int | str] | None]:
    """:func:`column` of several numbers that are computed at once: counts (r, N) -> (r, one for each of ``chances``).

    NaN is a number that does not exist: None for a column, a resample that does not count for an interval.
    """
    values = statistics(np.ones((1, examples), np.float32))[0]
    spread = np.concatenate([statistics(counts) for counts in resampled_counts(examples)])
    return [
        None if np.isnan(value) else _column(float(value), _around(float(value), those), examples, chance)
        for value, those, chance in zip(values, spread.T, chances, strict=True)
    ]


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values (n,), n >= 2: one value a seed.

    Raises:
        ValueError: fewer than two values, one that is not finite, or a level outside (0, 1).
    """
    sample = _checked(values, level)
    if sample.size < 2:
        raise ValueError("a t interval needs at least two values")
    half = float(stdtrit(sample.size - 1, (1 + level) / 2)) * float(sample.std(ddof=1)) / sample.size**0.5
    mean = float(sample.mean())
    return mean - half, mean + half


def _around(value: float, resampled: NDArray[np.float64], level: float = 0.95) -> Interval:
    """The recentred percentile interval; a resample of NaN, for which the number does not exist, does not count."""
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2]) - np.nanmean(resampled)
    return value + min(0.0, float(low)), value + max(0.0, float(high))


def _column(value: float, interval: Interval, examples: int, chance: float) -> dict[str, float | int | str]:
    low, high = interval
    return {
        "value": 100 * value,
        "low": 100 * max(0.0, low),
        "high": 100 * min(1.0, high),
        "n": examples,
        "chance": 100 * chance,
        "unit": "%",
    }


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    rows = max(1, _BLOCK // values.size)
    blocks = [
        values[rng.integers(values.size, size=(min(rows, resamples - start), values.size))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(blocks)


def _checked(values: ArrayLike, level: float) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError("values are one row of finite numbers")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return array
