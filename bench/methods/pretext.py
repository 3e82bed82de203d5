"""How well a trained task does its own job on images that it never saw: the pretext metric, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from bench.data.base import Dataset
from bench.data.images import subset
from bench.data.loader import Loader
from bench.files import atomic
from bench.methods.base import PretextTask, Step
from bench.training.device import derive

IMAGES = 1000
"""At most so many held-out images are looked at, evenly spread: data sets are sorted by class."""
ROWS = 8
"""Rows of a picture."""


@torch.no_grad()
def measure(
    task: PretextTask, heldout: Dataset, *, batch: int, seed: int, fabric: Fabric, workers: int
) -> dict[str, Any]:
    """{"metric", "value", "chance", "n", "all"}: means of ``task.heldout`` over held-out images, in eval mode.

    One process measures: it is reported, and nothing is chosen by it.
    """
    task.eval()
    count = min(IMAGES, len(heldout))
    batch = min(task.heldout_batch or batch, count)
    generator = torch.Generator(fabric.device)
    sums: dict[str, float] = {}
    seen = _spread(heldout, count)
    with Loader(seen, task.heldout_view, seed=seed, batch=batch, workers=workers) as loader:
        for number, views in enumerate(loader.in_order()):
            torch.manual_seed(derive(seed, "pretext", number))
            generator.manual_seed(derive(seed, "pretext device", number))
            with fabric.autocast():
                metrics = task.heldout(views.to(fabric.device), Step(0, number, 1 + number), generator)
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(views)
    means = {key: value / count for key, value in sums.items()}
    return {"metric": task.metric, "value": means.get(task.metric), "chance": task.chance, "n": count, "all": means}


@torch.no_grad()
def write_picture(task: PretextTask, heldout: Dataset, path: Path, *, seed: int, fabric: Fabric) -> bool:
    """Write the task's picture of a few held-out images as PNG; whether there was one."""
    task.eval()
    rows = min(ROWS, len(heldout))
    generator = torch.Generator(fabric.device).manual_seed(derive(seed, "picture"))
    with Loader(_spread(heldout, rows), task.heldout_view, seed=seed, batch=rows, workers=0) as loader:
        views = next(iter(loader.in_order()))
    drawn = task.picture(views.to(fabric.device), generator)
    if drawn is None:
        return False
    from PIL import Image

    with atomic(path, "wb") as file:
        Image.fromarray(_sheet(drawn.cpu()).permute(1, 2, 0).numpy()).save(file, format="PNG")
    return True


def _spread(dataset: Dataset, count: int) -> Dataset:
    """``count`` of its samples, evenly spread, from the first on."""
    return subset(dataset, np.arange(count) * len(dataset) // count)


def _sheet(cells: Tensor, gap: int = 2) -> Tensor:
    """uint8 (rows, columns, 3, h, w) -> one image (3, H, W) with white gaps."""
    rows, columns, channels, height, width = cells.shape
    sheet = cells.new_full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255)
    for r in range(rows):
        for c in range(columns):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            sheet[:, top : top + height, left : left + width] = cells[r, c]
    return sheet
