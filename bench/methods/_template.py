"""FILL IN the name: FILL IN the idea in one sentence.

FILL IN why a network that solves this task must learn about objects. Until then this is a worked example: each image is
shown upright and upside down, and a classifier on top of the trunk says which is which.

Paper: FILL IN authors, title, venue, year, and the sections that were followed.

Shapes: crops (B, 3, S, S) become (2 B, 3, S, S), logits are (2 B, 2).

Pretext metric: ``accuracy``, the share of images told right; chance is 1 / 2.

Deviations from the paper:
- FILL IN every one, with its reason; "none" where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.methods.base import SGD, Backbone, Batch, Cosine, Loss, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Sample


class Template(PretextTask):
    """Options: none."""

    title, citation, version = "Template title", "template2026key", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=30,
        batch=128,
        optimiser=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, schedule=Cosine()),
        source="FILL IN where these figures stand",
    )
    metric, chance = "accuracy", 0.5

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.top = Top(backbone)
        self.classifier = nn.Linear(self.top.width, 2)

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self.backbone.input_side, generator)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over upright and upside down."""
        images = torch.cat([batch.views, batch.views.flip(2)])
        label = torch.arange(2, device=images.device).repeat_interleave(len(batch))
        logits = self.classifier(self.top(self.backbone(images, self.backbone.stages[-1:])))
        accuracy = (logits.argmax(1) == label).float().mean()
        yield "main", Loss(F.cross_entropy(logits, label), {"accuracy": accuracy})
