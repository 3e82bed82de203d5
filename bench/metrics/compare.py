"""Whether one row of a table is below another: a test over seeds and test examples, corrected over all pairs.

Two sources of chance make a row's number: the seed it was trained with, and the test examples it was measured on.
Seeds of different methods are unpaired; test examples are shared, so they are resampled for all rows at once and the
difference of two rows is what varies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

RESAMPLES = 2000
_BLOCK = 4_000_000
"""Draws held in memory at once."""


@dataclass(frozen=True)
class Measurement:
    """One row in one column."""

    values: tuple[float, ...]
    """One a seed."""
    resampled: NDArray[np.float64]
    """(R,): the mean over seeds under each resample of the test examples; the same resamples in every row."""
    examples: int
    """Test examples."""


def resampled_counts(examples: int, resamples: int = RESAMPLES, seed: int = 0) -> list[NDArray[np.float32]]:
    """How often each test example is drawn in each resample, in blocks (r, ``examples``) that make ``resamples``.

    The same for the same arguments, so all rows and seeds share the resamples.
    """
    rng = np.random.default_rng([seed, examples])
    rows = max(1, _BLOCK // examples)
    blocks = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(examples, size=(size, examples)) + examples * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * examples)
        blocks.append(counts.reshape(size, examples).astype(np.float32))
    return blocks


def p_below(a: Measurement, b: Measurement) -> float:
    """The p-value against "``a`` is not below ``b``": small where ``a`` is surely below.

    The difference of the seed means has the squared error s²a / Sa + s²b / Sb (over seeds, where there are at least
    two) + the variance of the difference under the resamples of the test examples; Student's t with Satterthwaite's
    degrees of freedom. Rows with one seed are compared over the test examples only.

    Raises:
        ValueError: the rows were measured on different numbers of examples or resamples.
    """
    if a.examples != b.examples or len(a.resampled) != len(b.resampled):
        raise ValueError("the two rows do not share their test examples")
    parts = [(float(np.var(a.resampled - b.resampled, ddof=1)), a.examples - 1)]
    parts += [
        (float(np.var(row.values, ddof=1)) / len(row.values), len(row.values) - 1)
        for row in (a, b)
        if len(row.values) > 1
    ]
    difference = float(np.mean(a.values) - np.mean(b.values))
    error = sum(square for square, _ in parts)
    if error == 0:
        return 0.0 if difference < 0 else 1.0
    freedom = error**2 / sum(square**2 / max(1, df) for square, df in parts)
    return float(stdtr(freedom, difference / math.sqrt(error)))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values adjusted by Holm's step-down method, in the order given: compare each with the level of the family."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def not_below_any(rows: Sequence[Measurement], level: float = 0.05) -> list[bool]:
    """For each row, whether no other row is significantly above it: Holm over all ordered pairs at ``level``.

    The chance that any truly best row is left out is at most ``level``.
    """
    pairs = [(a, b) for a in range(len(rows)) for b in range(len(rows)) if a != b]
    adjusted = holm([p_below(rows[a], rows[b]) for a, b in pairs])
    below = {a for (a, _), p in zip(pairs, adjusted, strict=True) if p <= level}
    return [index not in below for index in range(len(rows))]
