"""What a core loads a second: this project's decoder and packed store, against Pillow and torchvision's transforms.

    python tests/benchmarks/decoding.py [--images 300]

The peers' pipelines are those of lightly, solo-learn, VISSL and DeepCluster: Pillow opens and converts, transforms
resize, crop, mirror, ``ToTensor``, ``Normalize``; images are stacked to batches. Ours leaves bytes, which the device
normalises; what that costs on this CPU is printed beside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import measuring as m
import torch
from PIL import Image
from torchvision import transforms as T

from bench.backbones.preprocess import Preprocess
from bench.data import transforms
from bench.data.base import Sample
from bench.data.loader import Loader

NORMALISE = [T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]


def peers(files: list[Any], *geometry: Callable[[Any], Any]) -> float:
    """CPU seconds of the peers' pipeline."""
    pipeline = T.Compose([*geometry, *NORMALISE])

    def load() -> None:
        for start in range(0, len(files), 64):
            torch.stack([pipeline(Image.open(file).convert("RGB")) for file in files[start : start + 64]])

    return m.cpu_seconds(load)


def ours(data: Any, view: Callable[..., Any]) -> float:
    """CPU seconds of the loader, without processes."""

    def load() -> None:
        with Loader(data, view, seed=0, batch=64, workers=0, drop_last=False) as loader:
            for _ in loader.in_order():
                pass

    return m.cpu_seconds(load)


def normalising(images: torch.Tensor) -> float:
    """CPU seconds of what the device does to the batches."""
    preprocess = Preprocess.named("imagenet")
    return m.cpu_seconds(lambda: [preprocess(batch) for batch in images.split(64)])


def probe_view(sample: Sample, generator: Any) -> Any:
    """Short side 256, a random crop of 224, perhaps mirrored."""
    crop = transforms.random_crop(m.GEOMETRY.resize(sample.image), 224, generator)
    return transforms.flip(crop, generator)


def pretext_view(sample: Sample, generator: Any) -> Any:
    """A random resized crop at 224, perhaps mirrored."""
    return transforms.flip(transforms.random_resized_crop(sample.image, 224, generator), generator)


def main() -> None:
    """Print images a second and the ratios."""
    asked = m.arguments(__doc__, images=300)
    m.heading("decode and crop, images a second of one core")
    with m.folder() as place:
        files = m.photographs(place / "drawn", asked.images)
        jpegs = m.labelled(place, files)
        stored = m.packed_too(place, jpegs)
        for data in (jpegs, stored):  # files and pages in memory, for both
            ours(data, probe_view)
        repeats = 20  # of the store, which is read too fast for one pass to be measured
        seconds = {
            "peers, resize + random crop": peers(files, T.Resize(256), T.RandomCrop(224)),
            "peers, random resized crop": peers(files, T.RandomResizedCrop(224)),
            "ours, resize + random crop": ours(jpegs, probe_view),
            "ours, random resized crop": ours(jpegs, pretext_view),
            "ours, packed + random crop": sum(ours(stored, probe_view) for _ in range(repeats)) / repeats,
            "normalising on this CPU": normalising(m.crops(stored)),
        }
        for what, taken in seconds.items():
            print(f"  {what:<30} {asked.images / taken:10.0f} images/s")
        crop, resized = seconds["peers, resize + random crop"], seconds["peers, random resized crop"]
        m.ratio("peers / ours, resize + random crop", crop, seconds["ours, resize + random crop"], ">= 1.4")
        m.ratio("peers / ours, random resized crop", resized, seconds["ours, random resized crop"], ">= 1.4")
        m.ratio("peers / packed store, random crop", crop, seconds["ours, packed + random crop"], ">= 50")


if __name__ == "__main__":
    main()
