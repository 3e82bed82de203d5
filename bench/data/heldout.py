"""The slice of a training set on which choices are made: a fixed function of the data set, with no seed.

All runs, methods and seeds hold out the same images, so that a learning rate is never chosen on images that some
method trained on with their labels.
"""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from bench.errors import BenchError


def held_out(ids: Sequence[str], labels: np.ndarray, share: float) -> np.ndarray:
    """bool (N,): whether each sample is held out.

    Of each class's n samples the first ceil(share * n), at most n - 1, in the order of the sha256 of their ids
    without the file's suffix: so at least one of a class of two or more where ``share`` > 0, and a larger share
    holds out all that a smaller one does. Unlabelled samples (-1) are never held out.

    Raises:
        BenchError: ``share`` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise BenchError(f"the held-out share must be at least 0 and less than 1, not {share}")
    labels = np.asarray(labels)
    held = np.zeros(len(labels), dtype=bool)
    keys = np.array([_key(i) for i in ids], dtype=np.uint64)
    order = np.lexsort((keys, labels))
    labelled = order[np.count_nonzero(labels < 0) :]
    _, starts, sizes = np.unique(labels[labelled], return_index=True, return_counts=True)
    exact = Fraction(str(share))  # ceil(0.07 * 100) is 8
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        held[labelled[start : start + min(math.ceil(exact * size), size - 1)]] = True
    return held


def _key(image: str) -> int:
    stem, _ = posixpath.splitext(image)
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big")
