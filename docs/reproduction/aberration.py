"""Do small photographs show chromatic aberration? By how much their channels part, from one side to the other.

    .venv/bin/python docs/reproduction/aberration.py --data DATA

A lens with lateral aberration shifts red and blue against green, away from the middle. For each of 10,000 images the
shift of one channel against another is fitted (least squares on the gradient, mean and contrast aside) in its left and
its right third, and in its upper and lower one; aberration shows as a mean difference of the two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from bench.data.catalog import open_dataset

PAIRS = (("red", 0, "green", 1), ("blue", 2, "green", 1), ("red", 0, "blue", 2))
LARGEST = 2.0
"""Pixels; larger fits are of parts without texture."""


def shift(one: Tensor, other: Tensor) -> Tensor:
    """By how many pixels (N,) the first of two channels, (N, H, W) each, lies to the right of the second."""
    one, other = (x - x.mean((1, 2), keepdim=True) for x in (one, other))
    gradient = (other[:, :, 2:] - other[:, :, :-2]) / 2
    terms = torch.stack([other[:, :, 1:-1].flatten(1), gradient.flatten(1)], 2)
    normal = terms.mT @ terms + 1e-4 * torch.eye(2)
    contrast, moved = torch.linalg.solve(normal, terms.mT @ one[:, :, 1:-1].flatten(1)[..., None])[..., 0].T
    return -moved / contrast.clamp(min=0.2)


def main() -> None:
    """A line a pair of channels and a direction."""
    parser = argparse.ArgumentParser(description="Chromatic aberration of small photographs.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/tuning/.cache"))
    arguments = parser.parse_args()
    dataset = open_dataset("tiny-imagenet-50", ("train",), root=arguments.data, cache=arguments.cache)
    images = torch.stack([dataset[i].image for i in range(len(dataset))]).float() / 255
    third = images.shape[-1] // 3
    for name, a, against, b in PAIRS:
        for direction, x in (("left to right", images), ("top to bottom", images.mT)):
            ends = [shift(part[:, a], part[:, b]) for part in (x[..., :third], x[..., -third:])]
            parted = (ends[1] - ends[0])[(ends[0].abs() < LARGEST) & (ends[1].abs() < LARGEST)]
            mean, spread = float(parted.mean()), float(parted.std())
            error = spread / len(parted) ** 0.5
            print(
                f"{name} against {against}, {direction}: {mean:+.4f} px (s.e. {error:.4f}), of one image {spread:.2f}"
            )


if __name__ == "__main__":
    main()
