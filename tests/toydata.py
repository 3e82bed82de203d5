"""A data set in memory, for tests of what does not care where images come from."""

from __future__ import annotations

import numpy as np
import torch

from bench.data.base import Sample


class ToyImages:
    """``size`` images of coloured stripes whose direction tells the class; in their clips the middle moves."""

    def __init__(self, size: int = 96, side: int = 32, classes: int = 4, name: str = "toy/train") -> None:
        rng = np.random.default_rng(len(name))
        self.name, self.digest = name, f"toy{size:013d}"
        self.ids = [f"{name}/{i:06d}" for i in range(size)]
        self.classes = tuple(f"class{k}" for k in range(classes))
        self.labels = np.arange(size) % classes
        y, x = np.mgrid[0:side, 0:side] / side
        images = []
        for label in self.labels:
            angle = np.pi * label / classes
            wave = np.sin(20 * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))
            colour = rng.uniform(0.3, 1, (3, 1, 1))
            images.append(127 + 100 * wave * colour + rng.normal(0, 8, (3, side, side)))
        self.images = torch.from_numpy(np.stack(images).clip(0, 255).astype(np.uint8))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        start, end = image.shape[-1] // 4, 3 * image.shape[-1] // 4
        later = image.clone()
        later[:, start:end, start + 2 : end + 2] = image[:, start:end, start:end]
        return Sample(image, index, int(self.labels[index]), torch.stack([image, later]))
