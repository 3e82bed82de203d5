"""A few images of a data set, for methods that look at data before they train."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data import transforms
from bench.data.base import Dataset


def batches(dataset: Dataset, side: int, count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """``count`` batches uint8 (size, C, side, side) of images drawn without replacement, centre-cropped.

    The short side is resized to 256/224 of ``side`` first. A data set that is too small gives fewer batches, at
    least one.
    """
    drawn = torch.randperm(len(dataset), generator=generator)[: count * size].tolist()
    short = transforms.short_side(side)
    crops = [transforms.center_crop(transforms.resize_short(dataset[i].image, short), side) for i in drawn]
    return [torch.stack(crops[at : at + size]) for at in range(0, max(1, len(crops) - size + 1), size)]
