"""Top-k accuracy from compact evidence: the rank of the true class and the predicted class, an image. Numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.metrics.intervals import bootstrap_mean

RANK_LIMIT = 255
"""Ranks are stored in a byte: 255 stands for 255 or more."""


def top_k(rank: NDArray[np.uint8], classes: int, k: int) -> dict[str, float | int | str]:
    """One column of a result: the share of images whose true class ranks among the first ``k``, in %.

    ``rank`` (N,) counts the classes scored above the true one; the interval is a 95 % bootstrap over images.
    """
    hits = np.asarray(rank) < k
    low, high = bootstrap_mean(hits)
    return {
        "value": 100 * float(hits.mean()),
        "low": 100 * low,
        "high": 100 * high,
        "n": len(hits),
        "chance": 100 * min(1.0, k / classes),
        "unit": "%",
    }


def contradictions(rank: NDArray[np.uint8], prediction: NDArray[np.uint16], labels: NDArray[np.int64]) -> int:
    """How many images' evidence cannot be true: rank 0 must be exactly where the prediction is the label."""
    return int(((rank == 0) != (prediction == labels)).sum())
