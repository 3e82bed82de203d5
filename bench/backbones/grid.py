"""Where the cells of a net's features are in the image: what pools over regions or upsamples must know it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from bench.backbones.base import Backbone

_SPAN = 256
"""Pixels by which an image is enlarged to see what its features gain; strides divide it."""


class Grid(NamedTuple):
    """A square grid of cells, laid over the image."""

    stride: int
    """Pixels from one cell's centre to the next one's."""
    first: float
    """The first one's centre; the centre of the image's first pixel is 0."""


PIXELS = Grid(1, 0.0)
"""The image itself."""


def walk(layers: Iterable[nn.Module], start: Grid = PIXELS) -> Grid:
    """Of what a chain of layers makes of a map whose cells are ``start``; only convolutions and max-pools move them.

    Windows are as wide as they are high, and not dilated.
    """
    stride, first = start
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            window, step, padding = map(_side, (layer.kernel_size, layer.stride, layer.padding))
            first += stride * ((window - 1) / 2 - padding)
            stride *= step
    return Grid(stride, first)


def grid(backbone: Backbone, stage: str) -> Grid:
    """Of a stage's cells.

    In nets with a global pool, which may have branches, every layer is taken to be padded so that the first centre
    is 0.

    Raises:
        BenchError: a stage that the backbone does not have.
    """
    (stage,) = backbone.wanted((stage,))
    if backbone.global_pool:
        small, large = (backbone.shapes(side)[stage].height for side in (_SPAN, 2 * _SPAN))
        return Grid(_SPAN // (large - small), 0.0)
    kept = backbone.stages[: backbone.stages.index(stage) + 1]
    return walk(layer for name, layer in backbone.chain().items() if name.split(".")[0] in kept)


def _side(value: int | str | tuple[int, ...]) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
