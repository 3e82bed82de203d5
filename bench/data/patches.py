"""Patches cut from batches of images, and what hides the shortcuts in them. Everything runs on the images' device.

Patches (B, N, C, h, w) are exact pixels at integer positions: nothing is interpolated.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

LUMA = (0.299, 0.587, 0.114)
"""The share of red, green and blue in a grey pixel (ITU-R BT.601)."""
GREEN_MAGENTA = (-1.0, 2.0, -1.0)
"""The axis along which lenses shift green against red and blue (Doersch et al. 2015, section 3.1)."""


def grid(batch: int, cells: int, step: int, room: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Corners of ``cells`` x ``cells`` patches an image, row by row: top and left, each int64 (B, cells ** 2).

    Cells lie ``step`` pixels apart, and every patch is 0 .. ``room`` pixels (inclusive, uniform, on its own) below
    and right of its cell's corner. Patches of at most ``step - room`` pixels never overlap.
    """
    start = torch.arange(cells, device=generator.device) * step
    jitter = torch.randint(room + 1, (2, batch, cells**2), generator=generator, device=generator.device)
    return start.repeat_interleave(cells) + jitter[0], start.repeat(cells) + jitter[1]


def cut(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) and corners int64 (B, N) -> squares (B, N, C, side, side), of the same type.

    Corners (B, N, C) cut each channel at its own place. They must leave the squares inside the image.
    """
    if top.ndim == 2:
        top, left = top[..., None], left[..., None]
    batch = torch.arange(images.shape[0], device=images.device)[:, None, None]
    channel = torch.arange(images.shape[1], device=images.device)
    return images.unfold(2, side, 1).unfold(3, side, 1)[batch, channel, top, left]


def standardise(patches: Tensor) -> Tensor:
    """Every channel of every patch (..., h, w), in [0, 1], at mean 0 and standard deviation 1; a flat one at 0."""
    centred = patches - patches.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=1 / 255)


def grey(images: Tensor) -> Tensor:
    """RGB (..., 3, h, w) -> its grey, three times."""
    weights = images.new_tensor(LUMA).view(3, 1, 1)
    return (images * weights).sum(-3, keepdim=True).expand_as(images)


def project(images: Tensor) -> Tensor:
    """RGB (..., 3, h, w) without its component along the green-magenta axis: P = I - a'a / aa'. Greys stay."""
    axis = images.new_tensor(GREEN_MAGENTA).view(3, 1, 1)
    return images - axis * (axis * images).sum(-3, keepdim=True) / axis.square().sum()
