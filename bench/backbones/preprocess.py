"""What happens to an image before the first convolution. It travels with the weights: cards and digests hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.colour import rgb_to_lab
from bench.errors import BenchError, did_you_mean

SPACES = {"rgb": 3, "bgr": 3, "lab": 3, "l": 1, "ab": 2, "sobel": 2, "none": 3}
"""Colour spaces, and the channels that the first convolution sees."""

Facts = dict[str, Any]

IMAGENET: Facts = {"space": "rgb", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""RGB over ImageNet's channel statistics."""
CAFFE: Facts = {"space": "bgr", "scale": 255.0, "mean": [104.00699, 116.66877, 122.67892]}
"""BGR in 0..255 minus ImageNet's mean, as Caffe's models take it."""
LAB: Facts = {"space": "lab", "mean": [50.0, 0.0, 0.0]}
"""CIE Lab, L in -50..50 (Split-Brain's ``deploy_lab``)."""
L: Facts = {"space": "l", "mean": [50.0]}
"""CIE lightness in -50..50 (Colorization)."""
AB: Facts = {"space": "ab"}
"""CIE a and b."""
SOBEL: Facts = {**IMAGENET, "space": "sobel"}
"""RGB over ImageNet's statistics, mean of the channels, then two Sobel filters (Noise as Targets, DeepCluster)."""
CIFAR10: Facts = {
    "space": "rgb", "scale": 255.0, "mean": [125.3, 123.0, 113.9], "std": [63.0, 62.1, 66.7],
}  # fmt: skip
"""RGB over CIFAR-10's channel statistics (the Rotation paper's released code)."""
NONE: Facts = {"space": "none"}
"""[0, 1] as it comes."""

PRESETS = {
    "imagenet": IMAGENET, "caffe": CAFFE, "lab": LAB, "l": L, "ab": AB, "sobel": SOBEL, "cifar10": CIFAR10,
    "none": NONE,
}  # fmt: skip

_SOBEL = [[[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]], [[[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]]]


class Preprocess(nn.Module):
    """Images -> what the trunk takes: to the colour space, times ``scale``, minus ``mean``, over ``std``.

    ``sobel`` alone filters last: the RGB image is normalised, averaged over its channels, and filtered by two
    3x3 Sobel filters with zero padding. A mean and std of one value hold for all channels. Its constants are not
    in the state dict.

    Raises:
        BenchError: unknown colour space; a mean or std that does not fit it; a std or scale of 0.
    """

    mean: Tensor
    std: Tensor
    filters: Tensor

    def __init__(
        self, space: str = "rgb", scale: float = 1.0, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__()
        if space not in SPACES:
            raise did_you_mean("colour space", space, list(SPACES))
        normalised = 3 if space == "sobel" else SPACES[space]
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in {1, normalised}:
                raise BenchError(f"{name} has {len(values)} values", mend=f"{space!r} takes 1 or {normalised}")
        if 0 in (scale, *std):
            raise BenchError("a scale or std of preprocessing is 0")
        self.space, self.scale = space, float(scale)
        self._mean, self._std = [float(v) for v in mean], [float(v) for v in std]
        self.register_buffer("mean", torch.tensor(self._mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self._std).view(1, -1, 1, 1), persistent=False)
        if space == "sobel":
            self.register_buffer("filters", torch.tensor(_SOBEL), persistent=False)

    @property
    def channels(self) -> int:
        """Channels of a preprocessed image."""
        return SPACES[self.space]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), RGB, uint8 or float in [0, 1] -> float (B, ``channels``, H, W).

        Here and nowhere else uint8 becomes [0, 1], so loaders ship bytes and normalisation is done on the device.
        """
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        x = (self._coloured(x) * self.scale - self.mean) / self.std
        return self._edges(x) if self.space == "sobel" else x

    def _coloured(self, x: Tensor) -> Tensor:
        match self.space:
            case "bgr":
                return x.flip(1)
            case "lab":
                return rgb_to_lab(x)
            case "l":
                return rgb_to_lab(x)[:, :1]
            case "ab":
                return rgb_to_lab(x)[:, 1:]
            case _:
                return x

    def _edges(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.conv2d(x.mean(1, keepdim=True), self.filters, padding=1)

    def to_dict(self) -> Facts:
        """Plain JSON, for cards and digests; :meth:`from_dict` is its inverse."""
        return {"space": self.space, "scale": self.scale, "mean": self._mean, "std": self._std}

    @classmethod
    def from_dict(cls, facts: Facts) -> Preprocess:
        """Raises BenchError: a key or value that is not understood."""
        unknown = set(facts) - {"space", "scale", "mean", "std"}
        if unknown:
            raise did_you_mean("key of preprocessing", min(unknown), ["space", "scale", "mean", "std"])
        return cls(**facts)

    @classmethod
    def named(cls, name: str) -> Preprocess:
        """One of :data:`PRESETS`.

        Raises:
            BenchError: there is none of that name.
        """
        if name not in PRESETS:
            raise did_you_mean("preprocessing", name, list(PRESETS))
        return cls.from_dict(PRESETS[name])

    @classmethod
    def of(cls, what: str | Facts) -> Preprocess:
        """By name as :meth:`named`, or by facts as :meth:`from_dict`; raises as they do."""
        return cls.named(what) if isinstance(what, str) else cls.from_dict(what)

    def extra_repr(self) -> str:
        """Shown by ``print(backbone)``."""
        return ", ".join(f"{key}={value}" for key, value in self.to_dict().items())
