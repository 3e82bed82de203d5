"""Rotation: predict by which multiple of 90 degrees an image was turned.

To tell how an image was turned, a network must recognise the objects in it and their canonical orientation, so
features of objects come with it. Each image of a batch is shown under all rotations, and a classifier on top of
the trunk says which is which.

Paper: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR
2018, sections 2.1 and 3.2; figures of training from the authors' released configuration.

Shapes: crops (B, 3, S, S) become (R * B, 3, S, S) for R rotations, logits are (R * B, R). Quarter turns are exact
(transposes and flips): no interpolation artefact gives the answer away. The crop is square and precedes the
rotation. Labels count the rotations counter-clockwise: of four, 1 is the transpose flipped up-down, 2 both flips, 3
the flipped image transposed.

Pretext metric: ``accuracy``, the share of rotated images told right; chance is 1 / R.

Deviations from the paper:
- 30 epochs with drops after 10 and 20 are the paper's as we remember it (unconfirmed); the released
  configuration trains 50 epochs with drops after 15, 30 and 45. We follow the paper.
- Crops are random resized crops with flips, as released; the paper says only that images are cropped. Option
  ``crop="random"`` takes crops of one scale, for images so small (64 px) that a twelfth of one shows nothing.
- The classifier (fc6, fc7, linear) is the released one; on narrower backbones it is narrower in proportion.
- With odd multiples of 45 degrees (the ablation's 8 rotations, which the released code lacks) those are bilinear,
  and of every rotation only the central square that lies inside the turned crop is shown, lest empty corners give
  the answer away. The crop is larger by about the square root of 2, so the network still sees S x S. That bilinear
  pixels are a little softer can still tell odd multiples from even ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.errors import BenchError, did_you_mean
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Sample

CROPS = ("resized", "random")
"""Random resized crops; or random crops of the image whose short side is 256 / 224 of the crop's."""
EVEN = (2, 4, 8)
"""The numbers of evenly spaced rotations."""


class Rotation(PretextTask):
    """Options: ``rotations``, how many from 0 degrees on, evenly spaced (2, 4, 8), or which, as [90, 270]; ``crop``."""

    title, citation, version = "Rotation", "gidaris2018unsupervised", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=30,
        batch=192,
        optimiser=SGD(
            lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=MultiStep(at=(10 / 30, 20 / 30))
        ),
        source="Gidaris et al. 2018; gidariss/FeatureLearningRotNet config/ImageNet_RotNet_AlexNet.py",
    )

    def __init__(self, backbone: Backbone, rotations: int | list[int] = 4, crop: str = "resized") -> None:
        super().__init__(backbone)
        if crop not in CROPS:
            raise did_you_mean("crop", crop, list(CROPS))
        self.crop = crop
        self.degrees = _degrees(rotations)
        self.chance = 1 / len(self.degrees)
        self.side = self.crop_side = backbone.input_side
        if any(degrees % 90 for degrees in self.degrees):
            self.crop_side = self.side + 2 * math.ceil(self.side * (math.sqrt(2) - 1) / 2)
        self.top = Top(backbone)
        self.classifier = nn.Linear(self.top.width, len(self.degrees))

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random crop, perhaps mirrored; larger where it is turned by 45 degrees."""
        if self.crop == "random":
            return transforms.mirrored_crop(sample.image, self.crop_side, generator)
        return transforms.flip(transforms.random_resized_crop(sample.image, self.crop_side, generator), generator)

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image as it was turned, then as turned back by the network's answer."""
        columns = []
        for degrees in self.degrees:
            turned = turn(batch.views, degrees, self.side)
            said = self._logits(turned).argmax(1).tolist()
            undone = [degrees - self.degrees[answer] for answer in said]
            back = [turn(view[None], rest, self.side) for view, rest in zip(batch.views, undone, strict=True)]
            columns += [turned, torch.cat(back)]
        return torch.stack(columns, 1)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the rotations of every image."""
        turned = torch.cat([turn(batch.views, degrees, self.side) for degrees in self.degrees])
        label = torch.arange(len(self.degrees), device=turned.device).repeat_interleave(len(batch))
        logits = self._logits(turned)
        accuracy = (logits.argmax(1) == label).float().mean()
        yield "main", Loss(F.cross_entropy(logits, label), {"accuracy": accuracy})

    def _logits(self, turned: Tensor) -> Tensor:
        return self.classifier(self.top(self.backbone(turned, self.backbone.stages[-1:])))


def turn(images: Tensor, degrees: int, side: int) -> Tensor:
    """The central ``side`` x ``side`` of uint8 images (B, 3, S, S) turned counter-clockwise by a multiple of 45.

    Quarter turns are exact; an eighth is bilinear, with black corners outside the central S / sqrt(2).
    """
    quarters, eighth = divmod(degrees, 90)
    if eighth:
        cosine = math.sqrt(0.5)
        theta = images.new_tensor([[cosine, -cosine, 0], [cosine, cosine, 0]], dtype=torch.float32)
        grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        images = F.grid_sample(images.float(), grid, align_corners=False).round().to(images.dtype)
    margin = (images.shape[-1] - side) // 2
    return torch.rot90(images, quarters, (2, 3))[..., margin : margin + side, margin : margin + side]


def _degrees(rotations: int | list[int]) -> list[int]:
    if isinstance(rotations, list):
        degrees = rotations
    else:
        degrees = list(range(0, 360, 360 // int(rotations))) if rotations in EVEN else []
    allowed = all(d in range(0, 360, 45) for d in degrees)
    if not allowed or not 2 <= len(degrees) == len(set(degrees)):
        raise BenchError(
            f"rotation knows no rotations {rotations!r}",
            mend=f"choose how many, of {list(EVEN)}, or which: a list of multiples of 45 degrees, as [90, 270]",
        )
    return degrees
