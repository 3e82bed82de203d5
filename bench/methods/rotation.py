"""Rotation: predict by which multiple of 90 degrees an image was turned.

To tell how an image was turned, a network must recognise the objects in it and their canonical orientation, so
features of objects come with it. Each image of a batch is shown under all rotations, and a classifier on top of
the trunk says which is which.

Paper: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR
2018, sections 2.1 and 3.2; figures of training from the authors' released configuration.

Shapes: crops (B, 3, S, S) become (R * B, 3, S, S) for R rotations, logits are (R * B, R). Rotations are exact
(transposes and flips): no interpolation artefact gives the answer away. The crop is square and precedes the
rotation.

Pretext metric: ``accuracy``, the share of rotated images told right; chance is 1 / R.

Deviations from the paper:
- 30 epochs with drops after 10 and 20 are the paper's as we remember it (unconfirmed); the released
  configuration trains 50 epochs with drops after 15, 30 and 45. We follow the paper.
- Crops are random resized crops with flips, as released; the paper says only that images are cropped.
- The classifier (fc6, fc7, linear) is the released one; on narrower backbones it is narrower in proportion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.errors import BenchError
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Sample

TURNS = {2: (0, 2), 4: (0, 1, 2, 3)}
"""Quarter turns counter-clockwise, by the number of rotations."""


class Rotation(PretextTask):
    """Options: ``rotations``, 4 (0, 90, 180, 270 degrees) or 2 (0, 180)."""

    title, citation, version = "Rotation", "gidaris2018unsupervised", 1
    needs = {"image"}
    recipe = Recipe(
        epochs=30,
        batch=192,
        optimiser=SGD(
            lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=MultiStep(at=(10 / 30, 20 / 30))
        ),
        source="Gidaris et al. 2018; gidariss/FeatureLearningRotNet config/ImageNet_RotNet_AlexNet.py",
    )

    def __init__(self, backbone: Backbone, rotations: int = 4) -> None:
        super().__init__(backbone)
        if rotations not in TURNS:
            raise BenchError(f"rotation knows no {rotations} rotations", mend=f"choose of {sorted(TURNS)}")
        self.turns, self.chance = TURNS[rotations], 1 / rotations
        self.top = Top(backbone)
        self.classifier = nn.Linear(self.top.width, rotations)

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random resized crop, perhaps mirrored."""
        crop = transforms.random_resized_crop(sample.image, self.backbone.input_side, generator)
        return transforms.flip(crop, generator)

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image as it was turned, then as turned back by the network's answer."""
        columns = []
        for k in self.turns:
            turned = torch.rot90(batch.views, k, (2, 3))
            said = self.classifier(self.top(self.backbone(turned, self.backbone.stages[-1:]))).argmax(1).tolist()
            back = [torch.rot90(image, -self.turns[s], (1, 2)) for image, s in zip(turned, said, strict=True)]
            columns += [turned, torch.stack(back)]
        return torch.stack(columns, 1)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the rotations of every image."""
        turned = torch.cat([torch.rot90(batch.views, k, (2, 3)) for k in self.turns])
        label = torch.arange(len(self.turns), device=turned.device).repeat_interleave(len(batch))
        logits = self.classifier(self.top(self.backbone(turned, self.backbone.stages[-1:])))
        accuracy = (logits.argmax(1) == label).float().mean()
        yield "main", Loss(F.cross_entropy(logits, label), {"accuracy": accuracy})
