"""sRGB to CIE Lab and back, batched, on the images' device, in float32 whatever the autocast says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Matrix = tuple[tuple[float, ...], ...]

_XYZ_OF_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""Linear sRGB to CIE XYZ (IEC 61966-2-1, illuminant D65, 2 degree observer)."""
_WHITE = np.array(_XYZ_OF_RGB).sum(1)
_FROM_RGB: Matrix = tuple(map(tuple, (np.array(_XYZ_OF_RGB) / _WHITE[:, None]).tolist()))
_TO_RGB: Matrix = tuple(map(tuple, np.linalg.inv(np.array(_FROM_RGB)).tolist()))

_KNEE = 6 / 29
"""Where the cube root of CIE Lab gives way to a straight line."""


def rgb_to_lab(images: Tensor) -> Tensor:
    """sRGB (B, 3, H, W) in [0, 1] -> CIE Lab (B, 3, H, W) under D65: L in [0, 100], a and b about [-110, 110].

    Greys, white among them, have a = b = 0.
    """
    rgb = images.float()
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    x, y, z = (
        torch.where(t > _KNEE**3, t.clamp(min=_KNEE**3) ** (1 / 3), t / (3 * _KNEE**2) + 4 / 29)
        for t in _mixed(_FROM_RGB, linear)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """CIE Lab (B, 3, H, W) -> sRGB (B, 3, H, W); colours that sRGB cannot show are clipped to [0, 1]."""
    lightness, a, b = lab.float().unbind(1)
    y = (lightness + 16) / 116
    xyz = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(xyz > _KNEE, xyz**3, 3 * _KNEE**2 * (xyz - 4 / 29))
    linear = torch.stack(_mixed(_TO_RGB, xyz), 1).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def _mixed(matrix: Matrix, images: Tensor) -> list[Tensor]:
    """Each row of the matrix over the channels; written out, so that autocast cannot round it to half precision."""
    first, second, third = images.unbind(1)
    return [row[0] * first + row[1] * second + row[2] * third for row in matrix]
