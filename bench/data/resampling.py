"""Resizing as a matrix: one axis of ``size`` pixels to another of ``to``. With a kernel an image, it batches.

An image x (C, H, W) becomes ``a @ x @ b.T``. The four kernels are Pillow's, antialiased: widened where they shrink.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import did_you_mean

Array = NDArray[np.float64]


def matrix(size: int, to: int, kernel: str) -> Tensor:
    """float32 (to, size): the share of each pixel in each new one; every row sums to 1.

    Raises:
        BenchError: no such kernel.
    """
    if kernel not in KERNELS:
        raise did_you_mean("resampling kernel", kernel, list(KERNELS))
    scale = size / to
    centres = (np.arange(to) + 0.5) * scale
    weights = KERNELS[kernel]((np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1.0))
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def _box(x: Array) -> Array:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: Array) -> Array:
    return np.maximum(1 - np.abs(x), 0)


def _bicubic(x: Array, a: float = -0.5) -> Array:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: Array) -> Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


KERNELS: dict[str, Callable[[Array], Array]] = {
    "box": _box,
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "lanczos": _lanczos,
}
