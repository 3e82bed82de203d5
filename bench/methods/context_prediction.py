"""Context prediction: given two neighbouring patches of an image, say how the second lies to the first.

The position can only be told by recognising what the patches show: an ear lies above an eye. Both patches go
through the same trunk, and a small network on both of them answers one of eight positions.

Paper: Doersch, Gupta, Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
section 3; figures from the authors' released training code.

Shapes, for a patch of p = 64 pixels (16 at 56-pixel backbones; all lengths go with it): one grid of 3 x 3 patches an
image, with gaps of p / 2, every patch moved by up to 7/96 of p each way. Patches (B, 9, 3, p, p) -> trunk and fc6,
shared -> all 40 ordered pairs of adjacent patches -> fc7 -> fc8 -> logits (B, 40, 8). Positions are numbered
``0 1 2 / 3 . 4 / 5 6 7`` around the first patch. Every adjacent pair enters in both orders, as in the released code.
fc7 on a concatenation is a linear layer for each of the two, summed: computed once a patch rather than once a pair.

Against shortcuts: gap and jitter, against continuing edges. Against telling a patch's place in the lens by
chromatic aberration, ``chromatic``:

- ``drop`` (default): one random channel stays, minus its mean; the two others become noise, uniform in -0.5 .. 0.5 of
  255;
- ``project``: the component along the green-magenta axis is taken out, P = I - a'a / aa', a = (-1, 2, -1);
- ``none``.

Afterwards each patch, its channels at mean 0, is divided by its root mean square and multiplied by 50 (of 255). So
the noise ends up at about a hundredth of the signal. Before, with probability 0.33, a patch is shrunk to a side of
int(sqrt(u (h^2 - l^2) + l^2)), u uniform in 0 .. 1, l = 10/96 of p, h = p - 1, and enlarged again, so that pixelation
tells nothing.

Options: ``chromatic``; ``patch``, p, the side of a patch (the paper's 96 pixels for its stride of 4).

Pretext metric: ``accuracy``, the mean over the eight positions of the share of pairs told right there. Adjacent
positions are not equally frequent in a grid (6 or 4 of 40 pairs); the mean over positions leaves every constant
answer, and guessing, at 1/8.

Deviations from the paper:
- Patches are 64 pixels at 224-pixel backbones in place of 96, as in later reimplementations (Kolesnikov et al. 2019),
  because images at hand are smaller. An image's area is drawn relative to the patch as in the released code, 150,000
  to 450,000 pixels for a patch of 96, but its sides are at least those of the grid and its jitter; the released code
  skips such images.
- One grid of 3 x 3 an image and epoch; the released code lays four over every image, each as large as fits.
- BatchNorm is the suite's backbone's; in fc6 and fc7 it has scale and shift (released: conv3-5, fc6 and fc7,
  without). Layers are narrower in proportion on narrower backbones. No dropout, as released. On ResNets and NINs fc6
  takes a patch's average over all places, and there is no fc8; OpenSelfSup's ResNet-50 has no fc6 either.
- Patches go through the backbone's own preprocessing, around ImageNet's mean colour: with CaffeNet's that gives the
  released inputs.
- The loss is a mean; the released one is a sum with rate 1e-5, which for the 2,240 pairs of 56 grids is 0.02.
  Momentum is 0.9: the released solver template sets none, the paper 0.999 (unconfirmed), which averages over more
  updates than a small suite makes. No weight decay, as released.
- 1,000,000 updates of 504 patches (unconfirmed) are 44 epochs of one grid an image of ImageNet.
- Shrinking and enlarging is bilinear with antialiasing; released: without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data import patches, transforms
from bench.data.resampling import matrix
from bench.errors import did_you_mean
from bench.methods._tiles import Tower, around_mean, tile_side, to_bytes
from bench.methods.base import SGD, Backbone, Batch, Constant, Loss, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Sample

CHROMATIC = ("drop", "project", "none")
POSITIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Down and right from the first patch to the second, by label."""
PAIRS = [
    (3 * row + column, 3 * (row + down) + column + right, label)
    for row in range(3)
    for column in range(3)
    for label, (down, right) in enumerate(POSITIONS)
    if 0 <= row + down < 3 and 0 <= column + right < 3
]
"""(first, second, label) of the 40 ordered pairs of adjacent cells, cells numbered row by row."""
AREA = (150_000 / 96**2, 450_000 / 96**2)
"""The area of an image, in areas of a patch."""
CENTRE = 4
BACKGROUND = 0.85
"""Of pictures."""


class ContextPrediction(PretextTask):
    """Options: ``chromatic``, ``drop``, ``project`` or ``none``; ``patch``, a patch's side in pixels, 8 or more."""

    title, citation, version = "Context prediction", "doersch2015unsupervised", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=44,
        batch=56,
        optimiser=SGD(lr=0.02, momentum=0.9, schedule=Constant()),
        source="Doersch et al. 2015; cdoersch/deepcontext train.py",
    )
    first: Tensor
    second: Tensor
    position: Tensor
    pixelations: Tensor

    def __init__(self, backbone: Backbone, chromatic: str = "drop", patch: int | None = None) -> None:
        super().__init__(backbone)
        if chromatic not in CHROMATIC:
            raise did_you_mean("chromatic", chromatic, list(CHROMATIC))
        self.chromatic, self.chance = chromatic, 1 / len(POSITIONS)
        self.patch = tile_side(backbone, patch)
        self.step = self.patch + self.patch // 2
        self.jitter = max(1, round(self.patch * 7 / 96))
        for name, values in zip(("first", "second", "position"), zip(*PAIRS, strict=True), strict=True):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.coarsest = max(2, round(self.patch * 10 / 96))
        sizes = range(self.coarsest, self.patch + 1)
        self.register_buffer("pixelations", torch.stack([_pixelation(self.patch, n) for n in sizes]), persistent=False)
        self.tower = Tower(backbone, self.patch, units=4096)
        width = self.tower.width
        self.fc7_first = nn.Linear(width, width, bias=False)
        self.fc7_second = nn.Linear(width, width, bias=False)
        self.norm7 = nn.BatchNorm1d(width)
        deep = [] if backbone.global_pool else [nn.Linear(width, width), nn.ReLU(inplace=True)]
        self.fc8 = nn.Sequential(*deep)
        self.classifier = nn.Linear(width, len(POSITIONS))

    @property
    def side(self) -> int:
        """Of the square that holds the grid and its jitter."""
        return 2 * self.step + self.patch + 2 * self.jitter

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): a random place of the image at a random scale; S is four patches and the jitter."""
        height, width = sample.image.shape[1:]
        low, high = AREA
        area = self.patch**2 * (low + (high - low) * generator.random())
        short = min(height, width) * (area / (height * width)) ** 0.5
        image = transforms.resize_short(sample.image, max(self.side, round(short)))
        return transforms.random_crop(image, self.side, generator)

    def grids(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, 3, S, S) -> patches in [0, 1], (B, 9, 3, p, p), row by row."""
        top, left = patches.grid(len(images), 3, self.step, 2 * self.jitter, generator)
        return patches.cut(images, top, left, self.patch) / 255

    def disguise(self, grids: Tensor, generator: torch.Generator) -> Tensor:
        """Patches in [0, 1] -> of the same shape, each channel at mean 0, each patch at root mean square 50 / 255."""
        x = self._pixelate(grids, generator)
        if self.chromatic == "project":
            x = patches.project(x)
        x = x - x.mean((-2, -1), keepdim=True)
        if self.chromatic == "drop":
            kept = torch.randint(3, (*x.shape[:2], 1, 1, 1), generator=generator, device=x.device)
            noise = torch.rand(x.shape, generator=generator, device=x.device) - 0.5
            x = torch.where(torch.arange(3, device=x.device).view(3, 1, 1) == kept, x, noise / 255)
        return x / x.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp(min=1e-4) * (50 / 255)

    def _pixelate(self, grids: Tensor, generator: torch.Generator) -> Tensor:
        """About a third of the patches, shrunk and enlarged again."""
        chosen, u = torch.rand(2, *grids.shape[:2], generator=generator, device=grids.device)
        low, high = self.coarsest**2, (self.patch - 1) ** 2
        size = torch.where(chosen < 0.33, (u * (high - low) + low).sqrt().long(), self.patch)
        resize = self.pixelations[size - self.coarsest, None]
        with torch.autocast(grids.device.type, enabled=False):
            return resize @ grids @ resize.mT

    def answer(self, grids: Tensor) -> Tensor:
        """Disguised patches (B, 9, 3, p, p) -> logits (B, 40, 8), pairs as in ``PAIRS``."""
        features = self.tower(self.backbone, around_mean(grids))
        pairs = self.fc7_first(features)[:, self.first] + self.fc7_second(features)[:, self.second]
        hidden = self.norm7(pairs.flatten(0, 1)).relu()
        return self.classifier(self.fc8(hidden)).unflatten(0, pairs.shape[:2])

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image's grid; then its centre patch with each neighbour where the network puts it."""
        grids = self.grids(batch.views, generator)
        said = self.answer(self.disguise(grids, generator)).argmax(2)[:, self.first == CENTRE]
        neighbours = self.second[self.first == CENTRE].tolist()
        columns = [self._sheet(grids)]
        for n, neighbour in enumerate(neighbours):
            shown = torch.full_like(grids, BACKGROUND)
            shown[:, CENTRE] = grids[:, CENTRE]
            cell = self.second[self.first == CENTRE][said[:, n]]
            shown[torch.arange(len(grids), device=cell.device), cell] = grids[:, neighbour]
            columns.append(self._sheet(shown))
        return torch.stack(columns, 1)

    def _sheet(self, grids: Tensor) -> Tensor:
        """Nine patches (B, 9, 3, p, p) -> uint8 (B, 3, 4p, 4p), with their gaps."""
        side = 2 * self.step + self.patch
        sheet = grids.new_full((len(grids), 3, side, side), BACKGROUND)
        for k in range(9):
            top, left = self.step * (k // 3), self.step * (k % 3)
            sheet[:, :, top : top + self.patch, left : left + self.patch] = grids[:, k]
        return to_bytes(sheet)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the positions, averaged over all pairs."""
        logits = self.answer(self.disguise(self.grids(batch.views, generator), generator))
        loss = F.cross_entropy(logits.flatten(0, 1), self.position.repeat(len(batch)))
        hits = (logits.argmax(2) == self.position).float().mean(0)
        accuracy = torch.stack([hits[self.position == k].mean() for k in range(len(POSITIONS))]).mean()
        yield "main", Loss(loss, {"accuracy": accuracy})


def _pixelation(side: int, coarse: int) -> Tensor:
    """(side, side): one axis to ``coarse`` pixels and back; the exact identity where ``coarse`` is ``side``."""
    return matrix(coarse, side, "bilinear") @ matrix(side, coarse, "bilinear")
