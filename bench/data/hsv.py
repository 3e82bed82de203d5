"""RGB to hue, saturation, value and back (Smith 1978), batched, on the images' device."""

from __future__ import annotations

import torch
from torch import Tensor


def rgb_to_hsv(images: Tensor) -> Tensor:
    """RGB (B, 3, H, W) in [0, 1] -> hue in turns [0, 1), saturation, value in [0, 1]; greys have hue 0."""
    red, green, blue = images.unbind(1)
    value, largest = images.max(1)
    spread = value - images.min(1).values
    by = spread.clamp(min=1e-8)
    sixths = torch.stack([(green - blue) / by, (blue - red) / by + 2, (red - green) / by + 4], 1)
    hue = sixths.gather(1, largest[:, None])[:, 0] / 6 % 1
    return torch.stack([hue, spread / value.clamp(min=1e-8), value], 1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """The inverse of :func:`rgb_to_hsv`; hues outside [0, 1) wrap around."""
    hue, saturation, value = hsv.unbind(1)
    distance = [(offset + 6 * hue) % 6 for offset in (5, 3, 1)]
    parts = [torch.minimum(d, 4 - d).clamp(0, 1) for d in distance]
    return torch.stack([value * (1 - saturation * part) for part in parts], 1)
