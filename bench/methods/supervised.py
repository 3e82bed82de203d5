"""Supervised (the tables' "ImageNet labels"): the row that says how far labels get.

A classifier over the classes of the data set, trained end to end on the trunk. It uses the labels that the
probes are measured with, so tables show it as a reference and rank it nowhere.

Paper: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
2012, section 5; Ioffe & Szegedy 2015 for BatchNorm.

Shapes: crops (B, 3, S, S), logits (B, classes). Pretext metric: ``accuracy`` on the training views.

Deviations from the paper:
- The trunk is the suite's, with BatchNorm where it has it; fc6 and fc7 with BatchNorm after dropout 0.5. On
  ResNets and NINs, a linear classifier on the average over all places, as theirs.
- 90 epochs with drops after 30 and 60 in place of drops by hand; Nesterov momentum; no PCA colour noise.
- Random crops of images whose short side is 256 / 224 of the crop, mirrored at random, as in the paper.
- Images of the slice on which probes choose their learning rate are left out, labels and all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Dataset, Sample


class Supervised(PretextTask):
    """Trains with labels; takes no options."""

    title, citation, version = "Supervised", "krizhevsky2012imagenet", 1
    role = "reference"
    needs = {"image", "label"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=90,
        batch=256,
        optimiser=SGD(lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=MultiStep(at=(1 / 3, 2 / 3))),
        source="Krizhevsky et al. 2012, section 5",
    )

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.top = Top(backbone, dropout=0.5)

    def setup(self, dataset: Dataset) -> None:
        """The output layer, one logit a class."""
        self.classifier = nn.Linear(self.top.width, len(dataset.classes))
        self.chance = 1 / len(dataset.classes)

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): short side to 256/224 of S, random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self.backbone.input_side, generator)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the classes."""
        logits = self.classifier(self.top(self.backbone(batch.views, self.backbone.stages[-1:])))
        accuracy = (logits.argmax(1) == batch.label).float().mean()
        yield "main", Loss(F.cross_entropy(logits, batch.label), {"accuracy": accuracy})
