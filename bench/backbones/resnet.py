"""ResNet: bottleneck residual networks, as they were and with activations first.

conv1 | pool1, res2 | res3 | res4 | res5; a bar ends a stage. conv1 is tapped ahead of the 3 x 3 max pool, as in the
benchmark of Goyal et al. 2019 (its ``res_conv1_bn``) and in OpenSelfSup (its ``feat1``): 112 pixels of 224.

- ``resnet50``, ``resnet101``: He et al. 2016 (v1), computing what torchvision's do. Where a stage halves the map, the
  3 x 3 convolution has the stride, not the first 1 x 1 ("v1.5"): so do torchvision, Goyal et al. (Caffe2), MoCo and
  Kolesnikov et al. Every stage is tapped after its last ReLU. 23,508,032 and 42,500,160 parameters.
- ``resnet50-s16``: res5 keeps the size of res4, 14 pixels of 224. Goyal et al.'s Colorization is trained and probed so.
- ``resnet101-v2``: the trunk of Multi-task (Doersch & Zisserman 2017): activations first (He et al. 2016b, v2), ends
  with res4, whose stride is taken out, so that it is 1/8 of the image; 1,024 channels, 27.5 million parameters. Whether
  res4 is dilated in exchange is unconfirmed; here it is not. A v2 stage ends in a plain sum; it is tapped after the
  BatchNorm and ReLU that follow it, which the first block of the next stage shares (it has a projection, so nothing
  needs the sum itself).
- ``resnet-smoke``, ``resnet-v2-smoke``: one block a stage, for images of 28 to 64 pixels; at 28 they are 28, 14, 14, 7,
  4 and 2 wide (v2: 28, 14, 14, 7, 7).

Names within a block are torchvision's: ``layer1.0.conv1`` there is ``res2.0.conv1`` here, its ``conv1`` and ``bn1`` are
``conv1.conv`` and ``conv1.norm``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.base import Backbone
from bench.backbones.initialise import he_normal_
from bench.backbones.preprocess import Preprocess
from bench.errors import BenchError

EXPANSION = 4
"""Channels of a block's output, in widths of its 3 x 3 convolution."""


class ResNet(Backbone):
    """Stages conv1, res2, ..., each of bottleneck blocks; BatchNorm after (v2: before) every convolution, no biases.

    Args:
        stages: conv1 and the residual stages.
        blocks: blocks of each residual stage.
        strides: stride of each residual stage, ahead of which pool1 halves the map.
        width: output channels of conv1; res2 has four times as many, each further stage twice as many as before.
        conv1: kernel, stride and padding of the first convolution.
        preactivation: v2: BatchNorm and ReLU precede the convolutions of a block, and its sum is left as it is.
        preprocess: a name of ``bench.backbones.preprocess.PRESETS``, or what ``Preprocess.to_dict`` gives.
        input_side: pixels of a training crop.

    Weights are He-normal over the fan-out, as torchvision's.

    Raises:
        BenchError: blocks and strides are not one a residual stage; an unknown ``preprocess``.
    """

    title, citation, version = "ResNet", "he2016deep", 1
    variants = {
        "resnet50": {},
        "resnet50-s16": {"strides": (1, 2, 2, 1)},
        "resnet101": {"blocks": (3, 4, 23, 3)},
        "resnet101-v2": {
            "stages": ("conv1", "res2", "res3", "res4"), "blocks": (3, 4, 23), "strides": (1, 2, 1),
            "preactivation": True,
        },
        "resnet-smoke": {"blocks": (1, 1, 1, 1), "width": 8, "conv1": (3, 1, 1), "input_side": 28},
        "resnet-v2-smoke": {
            "stages": ("conv1", "res2", "res3", "res4"), "blocks": (1, 2, 1), "strides": (1, 2, 1), "width": 8,
            "conv1": (3, 1, 1), "preactivation": True, "input_side": 28,
        },
    }  # fmt: skip
    stages: tuple[str, ...] = ("conv1", "res2", "res3", "res4", "res5")
    input_side = 224
    global_pool = True

    def __init__(
        self,
        stages: Sequence[str] = stages,
        blocks: Sequence[int] = (3, 4, 6, 3),
        strides: Sequence[int] = (1, 2, 2, 2),
        width: int = 64,
        conv1: Sequence[int] = (7, 2, 3),
        preactivation: bool = False,
        preprocess: str | dict[str, Any] = "imagenet",
        input_side: int = input_side,
    ) -> None:
        super().__init__()
        if not len(stages) - 1 == len(blocks) == len(strides):
            raise BenchError(f"{len(stages) - 1} residual stages need as many numbers of blocks, and strides")
        self.stages, self.input_side = tuple(stages), input_side
        self.preprocess = Preprocess.of(preprocess)
        self.in_channels = self.preprocess.channels
        kernel, stride, padding = conv1
        self.conv1 = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(self.in_channels, width, kernel, stride, padding, bias=False),
                norm=nn.BatchNorm2d(width),
                relu=nn.ReLU(inplace=True),
            )
        )
        make = _stage_v2 if preactivation else _stage
        inputs = width
        for i, (stage, count, stride) in enumerate(zip(self.stages[1:], blocks, strides, strict=True)):
            layers = make(inputs, width * 2**i, count, stride)
            if i == 0:
                layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
                layers.move_to_end("pool", last=False)
            self.add_module(stage, nn.Sequential(layers))
            inputs = width * 2**i * EXPANSION
        he_normal_(self)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, added to their input: (B, C, h, w) -> (B, 4 width, h / stride, ...)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        outputs = width * EXPANSION
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_projection(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of the sum."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class PreactBottleneck(nn.Module):
    """The same with BatchNorm and ReLU ahead of each convolution, and the sum left as it is (He et al. 2016b).

    The ``first`` of a stage takes features that were normalised and rectified already, and projects those.
    """

    def __init__(self, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.bn1 = None if first else nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample = _projection(inputs, outputs, stride) if first else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        y = x if self.bn1 is None else F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.downsample is None else self.downsample(y)
        y = F.relu(self.bn2(self.conv1(y)), inplace=True)
        y = F.relu(self.bn3(self.conv2(y)), inplace=True)
        return self.conv3(y) + shortcut


def _stage(inputs: int, width: int, count: int, stride: int) -> OrderedDict[str, nn.Module]:
    blocks = [Bottleneck(inputs, width, stride)]
    blocks += [Bottleneck(width * EXPANSION, width, 1) for _ in range(count - 1)]
    return OrderedDict((str(i), block) for i, block in enumerate(blocks))


def _stage_v2(inputs: int, width: int, count: int, stride: int) -> OrderedDict[str, nn.Module]:
    """Ends with the BatchNorm and ReLU that belong to the next stage's first block."""
    blocks = [PreactBottleneck(inputs, width, stride, first=True)]
    blocks += [PreactBottleneck(width * EXPANSION, width, 1, first=False) for _ in range(count - 1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict((str(i), block) for i, block in enumerate(blocks))
    layers["norm"] = nn.BatchNorm2d(width * EXPANSION)
    layers["relu"] = nn.ReLU(inplace=True)
    return layers


def _projection(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)
