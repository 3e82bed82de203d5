"""Counting: the visual primitives counted in an image are those counted in its four quarters.

A network gives every image a vector of counts. Shrinking an image by two must not change what it shows, and the
counts in its 2 x 2 tiles must add up to it; those of another image must not. No count is ever given.

Paper: Noroozi, Pirsiavash, Favaro, "Representation Learning by Learning to Count", ICCV 2017, section 3. There is no
code of the authors', and the text could not be read again: **all figures below are from memory (unconfirmed)**.

Shapes, for 224-pixel backbones (all sides go with ``backbone.input_side``): a crop x (B, 3, 224, 224) gives D x,
which is x shrunk to 112 x 112, and T_j x, its four quarters of 112 x 112, neither overlapping nor leaving a pixel out.
phi is the trunk, fc6 and fc7 (4,096 each) and fc8 (1,000) with ReLU, shared: counts phi (B, 1000), never negative.
With y another image,

    loss = |phi(D x) - sum_j phi(T_j x)|^2 + max(0, M - |phi(D y) - sum_j phi(T_j x)|^2),   M = 10.

Without its second term, phi = 0 would be a perfect and useless solution. y is the image before x in the batch.

Against shortcuts: each image is shrunk by a filter drawn of box, bilinear, bicubic and Lanczos (all antialiased), so
that the trace of one filter does not tell D x; D x and every tile are each made grey with probability 0.67, so that
chromatic aberration, which differs between tiles and the whole, tells nothing.

Pretext metric: ``accuracy``, the share of triples with |phi(D x) - sum|^2 < |phi(D y) - sum|^2; guessing gives 0.5.

Options: ``margin``, M, 10; ``chromatic``: ``grey``, as above, or ``none``, where images are too small to show any
aberration: nothing turns grey.

Deviations from the paper:
- Tiles of 112 pixels, half of the backbone's crop, in place of 114.
- Crops are random, of images whose short side is 256 / 224 of the crop, mirrored at random: the paper's are
  unconfirmed.
- D x and its tiles are grey independently of each other; whether the paper draws once an image is unconfirmed. Drawn
  once, y would often differ from x by being grey, which is a shortcut of its own.
- fc6 and fc7 have BatchNorm. All layers, counts too, are narrower in proportion on narrower backbones. fc8 starts
  with weights N(0, M / (2 x their number)): at any width, distances start near M, where both terms are at work.
- 200,000 updates of 200 images are 31 epochs of ImageNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.data import patches, transforms
from bench.data.resampling import KERNELS, matrix
from bench.errors import BenchError, did_you_mean
from bench.methods._tiles import CHROMATIC, Tower, fully_connected
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Sample

NEAREST = 4
"""Images shown beside each image of a picture."""


class Counting(PretextTask):
    """Options: ``margin``, how far apart the counts of different images are pushed (squared distance);
    ``chromatic``, ``grey`` or ``none``."""

    title, citation, version = "Counting", "noroozi2017representation", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=31,
        batch=200,
        optimiser=SGD(
            lr=1e-4,
            momentum=0.9,
            schedule=MultiStep(
                at=(
                    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5,
                    0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95,
                ),
                gamma=0.9,
            ),
        ),
        source="Noroozi et al. 2017, from memory (unconfirmed): 1e-4, times 0.9 each 10,000 of 200,000 updates",
    )  # fmt: skip
    filters: Tensor

    def __init__(self, backbone: Backbone, margin: float = 10.0, chromatic: str = "grey") -> None:
        super().__init__(backbone)
        if chromatic not in CHROMATIC:
            raise did_you_mean("chromatic", chromatic, list(CHROMATIC))
        if not 0 < margin < float("inf"):
            raise BenchError(f"counting cannot use a margin of {margin!r}", mend="choose one above 0, such as 10")
        self.margin, self.chromatic, self.chance = margin, chromatic, 0.5
        self.tile = backbone.input_side // 2
        filters = torch.stack([matrix(2 * self.tile, self.tile, kernel) for kernel in KERNELS])
        self.register_buffer("filters", filters, persistent=False)
        self.tower = Tower(backbone, self.tile, units=4096)
        self.fc7 = fully_connected(self.tower.width, self.tower.width)
        self.fc8 = nn.Linear(self.tower.width, self.tower.narrowed(1000))
        nn.init.normal_(self.fc8.weight, std=(margin / 2 / self.fc8.weight.numel()) ** 0.5)
        nn.init.zeros_(self.fc8.bias)

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S), two tiles a side: short side to 256/224 of S, random crop, perhaps mirrored."""
        image = transforms.resize_short(sample.image, transforms.short_side(self.backbone.input_side))
        return transforms.flip(transforms.random_crop(image, 2 * self.tile, generator), generator)

    def shrink(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """D: images in [0, 1], (B, 3, 2t, 2t) -> (B, 3, t, t), each by a filter of its own."""
        choice = torch.randint(len(self.filters), (len(images),), generator=generator, device=images.device)
        resize = self.filters[choice, None]
        with torch.autocast(images.device.type, enabled=False):
            return (resize @ images @ resize.mT).clamp(0, 1)

    def tiles(self, images: Tensor) -> Tensor:
        """T: (B, 3, 2t, 2t) -> (B, 4, 3, t, t), row by row."""
        rows = images.unflatten(3, (2, self.tile)).unflatten(2, (2, self.tile))
        return rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)

    def inputs(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, 3, 2t, 2t) -> D x and the four T_j x, (B, 5, 3, t, t) in [0, 1], some of them grey."""
        x = images / 255
        shown = torch.cat([self.shrink(x, generator)[:, None], self.tiles(x)], 1)
        if self.chromatic == "none":
            return shown
        draw = torch.rand(*shown.shape[:2], 1, 1, 1, generator=generator, device=shown.device)
        return torch.where(draw < 0.67, patches.grey(shown), shown)

    def counts(self, shown: Tensor) -> Tensor:
        """phi: (B, N, 3, t, t) -> (B, N, K), never negative."""
        features = self.fc7(self.tower(self.backbone, shown).flatten(0, 1))
        return self.fc8(features).relu().unflatten(0, shown.shape[:2])

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image, then the images of the batch, shrunk, whose counts come nearest to its tiles', nearest first."""
        counts = self.counts(self.inputs(batch.views, generator))
        nearest = torch.cdist(counts[:, 1:].sum(1), counts[:, 0]).argsort(1)[:, :NEAREST]
        return torch.cat([batch.views[:, None], batch.views[nearest]], 1)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """The contrastive loss over triples of D x, the tiles of x, and D y."""
        positive, negative = distances(self.counts(self.inputs(batch.views, generator)))
        loss = (positive + (self.margin - negative).relu()).mean()
        yield "main", Loss(loss, {"accuracy": (positive < negative).float().mean()})


def distances(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Counts (B, 5, K) of D x and its four tiles -> squared distances (B,) of the tiles' sum from D x, and from D y."""
    whole, total = counts[:, 0].float(), counts[:, 1:].float().sum(1)
    return (whole - total).square().sum(1), (whole.roll(1, 0) - total).square().sum(1)
