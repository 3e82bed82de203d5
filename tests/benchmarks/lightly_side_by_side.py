"""lightly's linear evaluation and this project's probe in the same run: same images, same backbone, same epochs.

    python tests/benchmarks/lightly_side_by_side.py [--classes 10] [--train 200] [--test 50] [--epochs 10]

lightly's ``LinearClassifier`` and ``MetricCallback`` are driven from outside, as its own benchmarks drive them: one
head on the last stage at one rate, Pillow and torchvision transforms. Ours trains heads on all five stages at five
rates, chooses, and measures. ``train`` and ``test`` count images a class, of Tiny ImageNet's 50-class subset where
BENCH_DATA has it, else generated. Both load in this process. The backbone has fresh weights: the point is that both
read the same off it.
"""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import measuring as m
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from bench.backbones.base import Backbone, build
from bench.data.images import open_images
from bench.data.scenes import write_image_folder
from bench.protocols.heads import LinearHeads
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.runfolder import RunFolder
from bench.training.device import fabric
from bench.training.loop import Execution

BATCH = 128
FEATURES = 1200
"""As the suite ``mini`` has it."""


class LastStage(nn.Module):
    """Images in [0, 1] -> the last stage's features, pooled and normalised as the probe's, with fixed statistics."""

    def __init__(self, heads: LinearHeads, train: Any) -> None:
        super().__init__()
        self.backbone = heads.backbone
        self.stage = self.backbone.stages[-1]
        head = heads.heads[self.stage]
        self.pool, self.dim = head.pool, head.dim
        self.norm = nn.BatchNorm2d(head.channels, affine=False, momentum=None)
        with torch.no_grad():
            for images, _ in train:
                self(images)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.pool(self.backbone(images, (self.stage,))[self.stage]))


def probe(epochs: int) -> ImageNetLinear:
    """``standard`` at the scale of these images."""
    steps = [math.ceil(epochs * share) for share in (8 / 28, 16 / 28, 24 / 28)]
    return m.standard(
        m.RATES,
        pool={"kind": "adaptive-avg", "features": FEATURES},
        batch=BATCH,
        epochs=epochs,
        schedule={"kind": "steps", "steps": steps, "gamma": 0.1},
    )


def images(place: Path, classes: int, train: int, test: int) -> Path:
    """``train/<class>/`` and ``val/<class>/``."""
    source = m.bench_data() / "tiny-imagenet-50"
    folder = place / "images"
    if not source.is_dir():
        print("generated scenes at 64 px (BENCH_DATA has no tiny-imagenet-50)")
        write_image_folder(folder, ("train", "val"), size=classes * max(train, test), classes=classes)
        return folder
    print("Tiny ImageNet")
    for split, each in (("train", train), ("val", test)):
        for wnid in sorted((source / split).iterdir())[:classes]:
            home = folder / split / wnid.name
            home.mkdir(parents=True)
            for image in sorted(wnid.iterdir())[:each]:
                (home / image.name).symlink_to(image)
    return folder


def lightlys(folder: Path, backbone: Backbone, classes: int, epochs: int) -> tuple[float, float]:
    """Top-1 of lightly's linear evaluation of the last stage after the last epoch, and the CPU seconds it took."""
    from lightly.utils.benchmarking import LinearClassifier, MetricCallback
    from pytorch_lightning import Trainer, seed_everything

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seed_everything(0, verbose=False)
    side = backbone.input_side
    resize = T.Resize(round(side * 256 / 224))
    augmented = T.Compose([resize, T.RandomCrop(side), T.RandomHorizontalFlip(), T.ToTensor()])
    central = T.Compose([resize, T.CenterCrop(side), T.ToTensor()])
    train = DataLoader(ImageFolder(folder / "train", augmented), BATCH, shuffle=True, drop_last=True)
    test = DataLoader(ImageFolder(folder / "val", central), BATCH)
    model = LastStage(LinearHeads(backbone, probe(epochs).probe, classes, fabric()), train)
    metrics = MetricCallback()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=[metrics],
        check_val_every_n_epoch=epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = LinearClassifier(
        model, batch_size_per_device=BATCH, feature_dim=model.dim, num_classes=classes, topk=(1, 5)
    )
    took = m.cpu_seconds(lambda: trainer.fit(classifier, train, test))
    return 100 * metrics.val_metrics["val_top1"][-1], took


def ours(folder: Path, place: Path, backbone: Backbone, epochs: int) -> dict[str, Any]:
    """The probe's columns: all stages, the best of five rates each."""
    protocol = probe(epochs)
    spec = {"kind": "evaluate", "method": "random", "backbone": "b", "suite": "s", "seed": 0}
    attempt = RunFolder.create(place / "runs", spec).take("benchmark")
    train, test = (open_images("images", folder, (split,), place / "cache") for split in ("train", "val"))
    how = Execution(workers=0)
    measured = protocol.evaluate(
        backbone, train, test, method="rotation", seed=0, fabric=fabric(), attempt=attempt, how=how
    )
    return protocol.columns(measured.evidence)


def main() -> None:
    """Print both accuracies with 95 % intervals, and the CPU times."""
    warnings.simplefilter("ignore")
    asked = m.arguments(__doc__, classes=10, train=200, test=50, epochs=10)
    m.heading(f"linear evaluation, alexnet-mini at 56 px, {asked.classes} classes, {asked.epochs} epochs")
    with m.folder() as place:
        folder = images(place, asked.classes, asked.train, asked.test)
        torch.manual_seed(0)
        backbone = build("alexnet-mini")
        theirs, theirs_took = lightlys(folder, backbone, asked.classes, asked.epochs)
        found: dict[str, Any] = {}
        ours_took = m.cpu_seconds(lambda: found.update(ours(folder, place, backbone, asked.epochs)))
    last = found[f"top1@{backbone.stages[-1]}"]
    n = last["n"]
    noise = 1.96 * math.sqrt(sum(p * (100 - p) for p in (theirs, last["value"])) / n)
    gap = last["value"] - theirs
    print(f"  top-1 at {backbone.stages[-1]}: lightly {theirs:.1f} %, ours {last['value']:.1f} % ({n} test images)")
    print(f"  difference {gap:+.1f}, noise (95 %) +-{noise:.1f}: {'within' if abs(gap) <= noise else 'BEYOND'} noise")
    m.ratio("lightly, one stage at one rate / ours, five at five", theirs_took, ours_took)
    m.ratio("25 such runs of lightly (25 x the one) / ours", 25 * theirs_took, ours_took)


if __name__ == "__main__":
    main()
