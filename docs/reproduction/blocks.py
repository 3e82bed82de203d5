"""Does a jigsaw solver look at the blocks of JPEG files? Its accuracy on images that were moved by some pixels.

    OMP_NUM_THREADS=1 .venv/bin/python docs/reproduction/blocks.py --data DATA

Trains ``jigsaw`` with each of its crops (10,000 images, seed 100), then lets it solve 2,500 other images, moved right
and down by 0 .. 16 pixels; what is missing at the border is mirrored. What an image shows hardly changes. An accuracy
that falls within a few pixels and is up again at 8, a block's side, comes from the blocks. After 4 epochs none does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from bench.data.base import Dataset
from bench.data.catalog import open_dataset
from bench.methods.base import make
from bench.methods.jigsaw import CROPS, Jigsaw
from bench.runfolder import RunFolder
from bench.suite import load
from bench.training.device import fabric
from bench.training.loop import Execution, train

SEED = 100


def trained(crop: str, images: Dataset, epochs: int, runs: Path) -> Jigsaw:
    """The task as ``mini`` first had it, with tiles of the images' own scale and the paper's discolouring."""
    suite = load("mini")
    options = suite.options("jigsaw", {"crop": crop, "tile": 16, "chromatic": "grey"})
    task = make("jigsaw", "alexnet-mini", options, seed=SEED)
    assert isinstance(task, Jigsaw)
    recipe = suite.recipe("jigsaw", Jigsaw.recipe).scaled(epochs=epochs)
    made, how = fabric(recipe.precision), Execution(workers=0)
    named = {"kind": "pretrain", "method": f"jigsaw-{crop}", "backbone": "alexnet-mini", "suite": "mini", "seed": SEED}
    attempt = RunFolder.create(runs, named).take("script")
    train(task, images, recipe, seed=SEED, fabric=made, attempt=attempt, how=how)
    attempt.end("DONE")
    return task.eval()


@torch.no_grad()
def accuracy(task: Jigsaw, images: torch.Tensor, moved: int) -> float:
    """The share of puzzles told right, of uint8 (N, 3, H, W) moved right and down."""
    side = 3 * task.cell
    framed = F.pad(images.float(), (moved, 0, moved, 0), mode="reflect").byte()[..., :side, :side]
    puzzles, answer = task.puzzles(framed, torch.Generator().manual_seed(SEED))
    return float((torch.cat([task.solve(part) for part in puzzles.split(250)]).argmax(1) == answer).float().mean())


def main() -> None:
    """A line a crop."""
    parser = argparse.ArgumentParser(description="Jigsaw on images that were moved.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--cache", type=Path, default=Path("runs/tuning/.cache"))
    arguments = parser.parse_args()
    at = {"root": arguments.data, "cache": arguments.cache}
    images = open_dataset("tiny-imagenet-50", ("train",), **at)
    others = open_dataset("tiny-imagenet-50", ("unlabelled",), **at)
    shown = torch.stack([others[int(i)].image for i in np.linspace(0, len(others) - 1, 2500)])
    print("crop     ", *(f"{moved:>5}" for moved in range(17)))
    for crop in CROPS:
        with tempfile.TemporaryDirectory() as runs:
            task = trained(crop, images, arguments.epochs, Path(runs))
        print(f"{crop:9}", *(f"{accuracy(task, shown, moved):5.2f}" for moved in range(17)), flush=True)


if __name__ == "__main__":
    main()
