"""What the methods share that show a network small tiles instead of whole images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.backbones.base import Backbone
from bench.backbones.preprocess import IMAGENET
from bench.errors import BenchError

CHROMATIC = ("grey", "none")
"""What is done against chromatic aberration: what the paper does, or nothing, where images are too small to show it."""
SMALLEST = 8
"""The side of a tile, in pixels, that the trunks' strides leave something of."""


def tile_side(backbone: Backbone, stated: int | None) -> int:
    """The side of a tile: as stated, or in proportion to the backbone's crops, 64 pixels where they have 224.

    The papers' trunks leave 5 or 6 places a side of a tile in their last convolutions. Small images are sooner enlarged
    than cut into tiles of which those see 2 x 2 places, mostly padding: such layers do not serve whole images.

    Raises:
        BenchError: less than ``SMALLEST`` pixels.
    """
    if stated is None:
        return round(backbone.input_side * 64 / 224)
    if stated < SMALLEST:
        raise BenchError(f"tiles cannot be {stated!r} pixels wide", mend=f"choose {SMALLEST} or more")
    return stated


def around_mean(patches: Tensor) -> Tensor:
    """Patches (..., 3, h, w) whose mean is 0, in units of [0, 1] -> images around ImageNet's mean colour.

    So every backbone takes them through its own preprocessing, whatever its colour space.
    """
    return patches + torch.tensor(IMAGENET["mean"], device=patches.device).view(3, 1, 1)


def to_bytes(patches: Tensor) -> Tensor:
    """Images in [0, 1], or what leaves it -> uint8."""
    return (patches.clamp(0, 1) * 255).round().byte()


def fully_connected(inputs: int, outputs: int) -> nn.Sequential:
    """Linear without bias (weights He-normal over the fan-out), BatchNorm, ReLU."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=(2 / outputs) ** 0.5)
    return nn.Sequential(linear, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))


class Tower(nn.Module):
    """A backbone's last stage on tiles of ``side`` pixels, max-pooled to at most 3 x 3, then fc6.

    Where the trunk has ``global_pool``, its global average in place of the 3 x 3 (OpenSelfSup, VISSL). ``share`` is
    what makes other layers narrower in proportion to the backbone: 1 for AlexNet's 256 x 3 x 3 features, 0.9 for
    ResNet-50's 2,048, ``units`` of fc6 included. The backbone itself stays the method's.
    """

    def __init__(self, backbone: Backbone, side: int, units: int) -> None:
        super().__init__()
        self.stages = backbone.stages[-1:]
        shape = backbone.shapes(side)[self.stages[0]]
        window = -(-shape.height // 3)
        cells = 1 if backbone.global_pool else -(-shape.height // window)
        self.pool = nn.AdaptiveAvgPool2d(1) if backbone.global_pool else nn.MaxPool2d(window, ceil_mode=True)
        features = shape.channels * cells**2
        self.share = features / (256 * 3 * 3)
        self.width = self.narrowed(units)
        self.fc6 = fully_connected(features, self.width)

    def narrowed(self, units: int) -> int:
        """The width of a layer that has ``units`` at the papers' scale; never below 16."""
        return max(16, round(units * self.share))

    def forward(self, backbone: Backbone, tiles: Tensor) -> Tensor:
        """Images (B, N, 3, side, side) -> (B, N, width)."""
        features = backbone(tiles.flatten(0, 1), self.stages)[self.stages[0]]
        return self.fc6(self.pool(features).flatten(1)).unflatten(0, tiles.shape[:2])
