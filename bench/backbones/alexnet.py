"""AlexNet: five convolutions, in the dialects that the tables need.

conv1 | pool1, conv2 | pool2, conv3 | conv4 | conv5, then pool5, fc6 and fc7 where asked for; a bar ends a stage. Pools
are 3x3 maxima with stride 2 that round up, as Caffe's do (at 224 and 227 px nothing depends on it, but for
``caffenet-s2``).

- ``alexnet``: the Rotation paper's (Gidaris et al. 2018), torchvision's widths with BatchNorm.
- ``alexnet-sobel``: Noise as Targets' and DeepCluster's (Bojanowski & Joulin 2017, Caron et al. 2018).
- ``caffenet``: Krizhevsky et al. 2012 as Caffe's reference model, without LRN: what Zhang et al. (2016, 2017) and
  others measure with. ``caffenet-lrn`` has the LRN (after the pools), ``bvlc-alexnet`` the original order (before).
- ``caffenet-bn``: BatchNorm after every convolution in place of LRN, for pretraining.
- ``caffenet-s2``: conv1 with stride 2, LRN after the pools: Jigsaw's (Noroozi & Favaro 2016), for small tiles.
- ``alexnet-smoke``, ``-demo``, ``-mini``: the Rotation paper's idea for small images. Their conv1 is 5x5 with stride
  2, so that at 56 px the stages are 28, 14, 7, 7, 7 pixels wide and a 16-pixel tile still leaves 2 x 2 features.

Parameters of the trunks: ``alexnet`` 2,472,000 (its convolutions are torchvision's 2,469,696), ``caffenet``
2,334,080, 60,965,224 with fc6, fc7 and a thousand classes, as published.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bench.backbones.base import Backbone
from bench.backbones.initialise import he_normal_
from bench.backbones.preprocess import Preprocess
from bench.errors import did_you_mean

NORMS = ("batch", "batch-conv", "none")
LRNS = ("none", "before-pool", "after-pool")


class AlexNet(Backbone):
    """Five stages, conv1 .. conv5, each convolution (with bias), perhaps BatchNorm, ReLU.

    Args:
        widths: output channels of the five convolutions.
        groups: groups of the five convolutions.
        conv1: kernel, stride and padding of the first convolution.
        norm: ``batch``: BatchNorm after every convolution and fc; ``batch-conv``: after convolutions only;
            ``none``: the twin without. An fc with BatchNorm has no bias, one without has a dropout of 0.5.
        lrn: local response normalisation around pool1 and pool2: ``none``, ``before-pool`` or ``after-pool``.
        leak: the slope of the ReLUs below 0.
        preprocess: a name of ``bench.backbones.preprocess.PRESETS``, or what ``Preprocess.to_dict`` gives.
        input_side: pixels of a training crop.
        fc: widths of fc6, fc7, ...; empty for none.

    Weights are He-normal over the fan-out, as the Rotation paper's and DeepCluster's, biases 0.

    Raises:
        BenchError: an unknown ``norm``, ``lrn`` or ``preprocess``.
    """

    title, citation, version = "AlexNet", "krizhevsky2012imagenet", 1
    variants = {
        "alexnet": {},
        "alexnet-sobel": {"widths": (96, 256, 384, 384, 256), "preprocess": "sobel"},
        "caffenet": {
            "widths": (96, 256, 384, 384, 256), "groups": (1, 2, 1, 2, 2), "conv1": (11, 4, 0), "norm": "none",
            "preprocess": "caffe", "input_side": 227,
        },
        "caffenet-lrn": {
            "widths": (96, 256, 384, 384, 256), "groups": (1, 2, 1, 2, 2), "conv1": (11, 4, 0), "norm": "none",
            "lrn": "after-pool", "preprocess": "caffe", "input_side": 227,
        },
        "bvlc-alexnet": {
            "widths": (96, 256, 384, 384, 256), "groups": (1, 2, 1, 2, 2), "conv1": (11, 4, 0), "norm": "none",
            "lrn": "before-pool", "preprocess": "caffe", "input_side": 227,
        },
        "caffenet-bn": {
            "widths": (96, 256, 384, 384, 256), "groups": (1, 2, 1, 2, 2), "conv1": (11, 4, 0), "input_side": 227,
        },
        "caffenet-s2": {
            "widths": (96, 256, 384, 384, 256), "groups": (1, 2, 1, 2, 2), "conv1": (11, 2, 0), "norm": "none",
            "lrn": "after-pool", "preprocess": "caffe", "input_side": 227,
        },
        "alexnet-smoke": {"widths": (8, 16, 16, 16, 16), "conv1": (5, 2, 2), "input_side": 28},
        "alexnet-demo": {"widths": (24, 48, 64, 64, 64), "conv1": (5, 2, 2), "input_side": 56},
        "alexnet-mini": {"widths": (32, 64, 128, 128, 128), "conv1": (5, 2, 2), "input_side": 56},
    }  # fmt: skip
    stages = ("conv1", "conv2", "conv3", "conv4", "conv5")
    input_side = 224

    def __init__(
        self,
        widths: Sequence[int] = (64, 192, 384, 256, 256),
        groups: Sequence[int] = (1, 1, 1, 1, 1),
        conv1: Sequence[int] = (11, 4, 2),
        norm: str = "batch",
        lrn: str = "none",
        leak: float = 0.0,
        preprocess: str | dict[str, Any] = "imagenet",
        input_side: int = input_side,
        fc: Sequence[int] = (),
    ) -> None:
        super().__init__()
        for name, value, known in (("norm", norm, NORMS), ("lrn", lrn, LRNS)):
            if value not in known:
                raise did_you_mean(name, value, list(known))
        self.preprocess = Preprocess.of(preprocess)
        self.in_channels, self.input_side = self.preprocess.channels, input_side
        sizes: tuple[Sequence[int], ...] = (conv1, (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        inputs = (self.in_channels, *widths[:-1])
        for stage, channels, width, (k, stride, padding), parts in zip(
            self.stages, inputs, widths, sizes, groups, strict=True
        ):
            layers: OrderedDict[str, nn.Module] = _pooling(lrn) if stage in {"conv2", "conv3"} else OrderedDict()
            layers["conv"] = nn.Conv2d(channels, width, k, stride, padding, groups=parts)
            if norm != "none":
                layers["norm"] = nn.BatchNorm2d(width)
            layers["relu"] = _relu(leak)
            self.add_module(stage, nn.Sequential(layers))
        if fc:
            self.fc = self._fully_connected(fc, leak, normed=norm == "batch")
        he_normal_(self)

    def _fully_connected(self, widths: Sequence[int], leak: float, normed: bool) -> nn.Sequential:
        head: OrderedDict[str, nn.Module] = OrderedDict(pool5=_max_pool(), flatten=nn.Flatten())
        features = nn.Sequential(head)(torch.zeros(1, *self.shapes()["conv5"])).shape[1]
        for i, width in enumerate(widths, start=6):
            head[f"fc{i}"] = nn.Linear(features, width, bias=not normed)
            if normed:
                head[f"norm{i}"] = nn.BatchNorm1d(width)
            head[f"relu{i}"] = _relu(leak)
            if not normed:
                head[f"drop{i}"] = nn.Dropout(0.5)
            features = width
        return nn.Sequential(head)

    def chain(self) -> dict[str, nn.Module]:
        """Every layer but the preprocessing, in forward order, which is the order they were added in."""
        layers = {name: module for name, module in self.named_modules() if not any(module.children())}
        return {name: module for name, module in layers.items() if module is not self.preprocess}


def _pooling(lrn: str) -> OrderedDict[str, nn.Module]:
    """What a stage does to the features of the one before it, ahead of its convolution."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=_max_pool())
    if lrn != "none":
        layers["lrn"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        layers.move_to_end("lrn", last=lrn == "after-pool")
    return layers


def _relu(leak: float) -> nn.Module:
    return nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)


def _max_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
