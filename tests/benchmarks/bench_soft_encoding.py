"""Soft encoding of colours: the table of ``AbBins`` against the nearest-neighbour search of Colorization's release.

    python tests/benchmarks/bench_soft_encoding.py [--images 80]

Both encode a and b of 28 x 28 places an image as their 10 nearest of 313 bins. The search alone is scikit-learn's
``kneighbors`` in one call for all; the release also weights what it finds and writes the dense code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import measuring as m
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from bench.data.ab_bins import SIGMA, AbBins
from bench.data.colour import rgb_to_lab

REPEATS = 9


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call: the least disturbed of a few, after one to warm up."""
    work()
    return min(m.cpu_seconds(work) for _ in range(REPEATS))


def main() -> None:
    """Print the ratios."""
    images = m.arguments(__doc__ or "", images=80).images
    bins = AbBins(10)
    ab = rgb_to_lab(torch.rand(images, 3, 28, 28, generator=torch.Generator().manual_seed(0)))[:, 1:].contiguous()
    pixels = ab.movedim(1, -1).reshape(-1, 2).numpy()
    search = NearestNeighbors(n_neighbors=10, algorithm="ball_tree").fit(bins.centres.numpy())

    def dense() -> None:
        distances, indices = search.kneighbors(pixels)
        weights = np.exp(-(distances**2) / (2 * SIGMA**2))
        code = np.zeros((len(pixels), len(bins)))
        code[np.arange(len(pixels))[:, None], indices] = weights / weights.sum(1, keepdims=True)

    ours, nearest = seconds(lambda: bins.encode(ab)), seconds(lambda: bins.nearest(ab))
    m.heading(f"soft encoding of {len(pixels):,} places: {ours / len(pixels) * 1e9:.0f} ns each")
    m.ratio("scikit-learn's search / soft encoding", seconds(lambda: search.kneighbors(pixels)), ours, "20")
    m.ratio("the release's encoding / soft encoding", seconds(dense), ours)
    m.ratio("scikit-learn's search / nearest bin", seconds(lambda: search.kneighbors(pixels, 1)), nearest)


if __name__ == "__main__":
    main()
