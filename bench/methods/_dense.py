"""What the tasks that predict a map share: a fully convolutional top, and maps of standardised channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.colour import lab_to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.backbones.base import Shape


class DenseTop(nn.Module):
    """The last stage (B, C, h, w) -> pool5, fc6, fc7 and an output layer, all convolutions -> (B, ``outputs``, h, w).

    Colorization's (its released ``train_alexnet``): pool5 is 3 x 3 with stride 1; fc6 has a dilation of 2 and spans
    the map, so 6 x 6 on the paper's 12 x 12; fc7 and the output are 1 x 1. fc6 and fc7 have BatchNorm and ReLU, and
    4,096 channels on AlexNet, fewer in proportion on smaller maps and narrower trunks. With ``pointwise``, for trunks
    that have ``global_pool`` and so no fc6 and fc7, it is the output layer alone.
    """

    def __init__(self, shape: Shape, outputs: int, pointwise: bool = False) -> None:
        super().__init__()
        if pointwise:
            self.layers = nn.Sequential(nn.Conv2d(shape.channels, outputs, 1))
            return
        kernel = max(1, shape.height // 2)
        width = max(16, round(shape.channels * kernel**2 * 4096 / 9216))
        self.layers = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            *_block(nn.Conv2d(shape.channels, width, kernel, padding=kernel - 1, dilation=2, bias=False)),
            *_block(nn.Conv2d(width, width, 1, bias=False)),
            nn.Conv2d(width, outputs, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, outputs, h, w)."""
        return self.layers(features)


class Standardised(nn.Module):
    """Maps (B, C, h, w) in units of the data's standard deviation, channel by channel; the mean colour is 0."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Take mean and standard deviation from maps of the data (B, C, h, w)."""
        values = torch.cat([x.movedim(1, 0).flatten(1) for x in maps], 1)
        self.mean.copy_(values.mean(1).view_as(self.mean))
        self.std.copy_(values.std(1).clamp(min=1e-3).view_as(self.std))

    def forward(self, maps: Tensor) -> Tensor:
        """To standard units."""
        return (maps - self.mean) / self.std

    def back(self, maps: Tensor) -> Tensor:
        """From standard units."""
        return maps * self.std + self.mean


def explained(loss: Tensor, trivial: Tensor) -> Tensor:
    """1 - loss / (loss of the trivial predictor); at most 1, and 0 for the trivial predictor."""
    return 1 - loss.detach() / trivial.clamp(min=1e-6)


def averaged(maps: Tensor, like: Tensor) -> Tensor:
    """(B, C, H, W) averaged down to the height and width of ``like``."""
    height, width = like.shape[-2:]
    return F.adaptive_avg_pool2d(maps, (height, width))


def enlarged(maps: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) bilinearly enlarged to the height and width of ``like``."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear")


def drawn(lab: Tensor) -> Tensor:
    """Lab with L - 50, (B, 3, H, W) -> RGB, uint8, for pictures."""
    rgb = lab_to_rgb(lab + lab.new_tensor([50.0, 0, 0]).view(1, 3, 1, 1))
    return (rgb * 255).round().byte()


def _block(convolution: nn.Conv2d) -> list[nn.Module]:
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]
