"""Geometry on single images, uint8 (C, H, W) in and out, before they are batched.

Random ones draw from the sample's own numpy generator. Everything about colour and every transformation of whole
batches is done on the device, not here. Resizing is bilinear with antialiasing unless said otherwise: kernel and
antialiasing are part of what identifies a protocol variant.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError, did_you_mean

_MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}
KERNELS = tuple(_MODES)
"""``bilinear`` and ``bicubic`` agree with Pillow's to 1 of 255 when antialiased, ``bilinear`` with OpenCV's when
not; ``nearest`` takes the pixel under the centre, as Pillow does, and antialiasing means nothing to it."""


def resize(image: Tensor, size: tuple[int, int], kernel: str = "bilinear", antialias: bool = True) -> Tensor:
    """The whole image at (height, width); the image itself where it has that size.

    Raises:
        BenchError: no such kernel.
    """
    if kernel not in _MODES:
        raise did_you_mean("resize kernel", kernel, list(KERNELS))
    if image.shape[1:] == size:
        return image
    smooth = antialias and kernel != "nearest"
    return torch.nn.functional.interpolate(image[None], size, mode=_MODES[kernel], antialias=smooth)[0]


def resize_short(image: Tensor, side: int, kernel: str = "bilinear", antialias: bool = True) -> Tensor:
    """The short side at ``side``, the long one in proportion, rounded down (as torchvision's ``Resize``)."""
    height, width = image.shape[1:]
    if height <= width:
        return resize(image, (side, width * side // height), kernel, antialias)
    return resize(image, (height * side // width, side), kernel, antialias)


def random_crop(image: Tensor, side: int, generator: np.random.Generator) -> Tensor:
    """A square of the image at a uniform position; a view of the same pixels.

    Raises:
        BenchError: the image is smaller than the square.
    """
    height, width = _room(image, side)
    return _crop(image, _below(generator, height + 1), _below(generator, width + 1), side, side)


def short_side(crop: int) -> int:
    """The short side of an image ahead of a square crop: 256 pixels where the crop has 224, 64 where it has 56."""
    return round(crop * 256 / 224)


def mirrored_crop(image: Tensor, side: int, generator: np.random.Generator) -> Tensor:
    """uint8 (C, ``side``, ``side``): the short side to 256/224 of it, a random crop, perhaps mirrored."""
    image = resize_short(image, short_side(side))
    return flip(random_crop(image, side, generator), generator)


def center_crop(image: Tensor, side: int) -> Tensor:
    """The square in the middle, the upper left one of two; a view of the same pixels.

    Raises:
        BenchError: the image is smaller than the square.
    """
    height, width = _room(image, side)
    return _crop(image, height // 2, width // 2, side, side)


def ten_crop(image: Tensor, side: int) -> Tensor:
    """(10, C, side, side): the four corners and the centre, then those of the mirrored image (as torchvision's).

    Raises:
        BenchError: the image is smaller than the squares.
    """
    down, right = _room(image, side)
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    return torch.stack([_crop(x, *at, side, side) for x in (image, image.flip(-1)) for at in corners])


def random_resized_crop(
    image: Tensor,
    side: int,
    generator: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    kernel: str = "bilinear",
    antialias: bool = True,
) -> Tensor:
    """A rectangle of random area and shape, resized to a square (Szegedy et al. 2015).

    As torchvision's: the area is uniform in ``scale`` of the image's, width / height log-uniform in ``ratio``; after
    ten rectangles that do not fit, the largest central one whose shape is within ``ratio``.
    """
    _, height, width = image.shape
    crop = _crop(image, *_rectangle(height, width, generator, scale, ratio))
    return resize(crop, (side, side), kernel, antialias)


def pad(image: Tensor, size: tuple[int, int], value: int = 0) -> Tensor:
    """Up to (height, width) by ``value`` on the right and below, so that images of several sizes make one batch."""
    return torch.nn.functional.pad(image, (0, size[1] - image.shape[-1], 0, size[0] - image.shape[-2]), value=value)


def flip(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Mirrored left to right with probability one half."""
    return image.flip(-1) if generator.random() < 0.5 else image


def _rectangle(
    height: int, width: int, generator: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop."""
    narrow, wide = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * generator.random())
        shape = math.exp(narrow + (wide - narrow) * generator.random())
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < h <= height and 0 < w <= width:
            return _below(generator, height - h + 1), _below(generator, width - w + 1), h, w
    shape = min(max(width / height, ratio[0]), ratio[1])
    h, w = min(height, round(width / shape)), min(width, round(height * shape))
    return (height - h) // 2, (width - w) // 2, h, w


def _below(generator: np.random.Generator, end: int) -> int:
    """Uniform in 0 .. end - 1; ``integers`` takes four times as long."""
    return int(generator.random() * end)


def _crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return image[:, top : top + height, left : left + width]


def _room(image: Tensor, side: int) -> tuple[int, int]:
    """How far a square can move down and to the right."""
    height, width = image.shape[1:]
    if height < side or width < side:
        raise BenchError(
            f"a crop of {side} x {side} does not fit an image of {height} x {width}",
            mend="resize the image first, or crop less",
        )
    return height - side, width - side
