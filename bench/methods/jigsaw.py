"""Jigsaw: nine tiles of an image are shuffled; say by which of n permutations.

To put tiles back in order, a network must know the parts of objects and how they lie to each other. It is
context-free: each tile goes through the trunk alone, and only the last layers see all nine.

Paper: Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016,
section 3; figures from the authors' released solver, network and data layers.

Shapes, for the papers' 224-pixel backbones (all sides go with ``backbone.input_side``): a crop of 255 has 3 x 3 cells
of 85. In each cell a tile of 64 lies at a random place, so the gap between neighbours is 0 .. 42 pixels, 21 in the
mean; tiles never overlap. Tiles (B, 9, 3, 64, 64), in shuffled order -> trunk and fc6, shared, 1,024 a tile ->
concatenated, 9,216 -> fc7, 4,096 -> logits (B, n). The n permutations are chosen greedily for a large mean Hamming
distance (``bench.methods._permutations``); the identity is not among them.

Against shortcuts: the gaps, against continuing edges and textures; mean 0 and standard deviation 1 of every channel
of every tile, against matching brightness and contrast; every channel of every tile shifted by 0 .. 2 pixels on its
own, and half of the images grey, half of the others without their green-magenta component, against chromatic
aberration. Images are never mirrored.

Options: ``permutations``, n, 1,000; the authors published sets of 100 and 701 too. ``crop``: ``random``, as published;
``resized``, for images hardly larger than the crop. Such images are not shrunk, so the 8 x 8 blocks of their JPEG
files survive, and as tiles move by less than a block, where the blocks' edges lie tells the cell. Photographs of
several hundred pixels are shrunk by factors of their own, to blocks much smaller than a gap. A rectangle of random
area and shape, enlarged to the crop, moves and scales the blocks of small ones likewise. ``tile``: the side of a
tile; all lengths go with it. ``chromatic``: ``grey``, as above; ``none``, where images are too small to show any
aberration: no channel is shifted and none discoloured.

Pretext metric: ``accuracy``, the share of puzzles told right, one puzzle an image; chance is 1 / n.

Deviations from the paper:
- The trunk is the suite's. The paper's is AlexNet with stride 2 in conv1 and LRN (``caffenet-s2``).
- Channels are shifted inside the cell, so a tile's place varies over 85 - 64 - 2 = 19 pixels in place of 21 (the
  authors' later layer: 18). On small tiles the shift is rounded, but at least one pixel.
- Tiles are standardised as the paper says; the released layer subtracts the mean colour instead.
- fc6 and fc7 have BatchNorm in place of dropout; on narrower backbones they are narrower in proportion. On ResNets and
  NINs fc6 takes a tile's average over all places, and there is no fc7, as in VISSL (ResNet-50: fc6 910, there 1,000).
- The sets are our own, by the paper's greedy rule, and any two permutations differ in three places or more (the
  authors' set of 701 has that, that of 100 has two). Mean distances agree with the published sets' to 0.02.
- That 1,000 is the paper's choice for its tables is from memory (unconfirmed). 350,000 updates of 256 images are 70
  epochs of ImageNet, with drops after each 100,000.
- Grey is luma; how the released code weighs the channels is unconfirmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.preprocess import IMAGENET
from bench.data import patches, transforms
from bench.errors import BenchError, did_you_mean
from bench.methods._permutations import TILES, far_apart
from bench.methods._tiles import CHROMATIC, Tower, around_mean, fully_connected, tile_side, to_bytes
from bench.methods.base import SGD, Backbone, Batch, Loss, MultiStep, PretextTask, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Sample

CROPS = ("random", "resized")
"""A crop of the image; or of a rectangle in it, enlarged."""
AREA = (0.35, 1.0)
"""Of a rectangle, in areas of the image."""
MOST = 10_000
"""Permutations; the largest set in the literature (Goyal et al. 2019)."""


class Jigsaw(PretextTask):
    """Options: ``permutations``, how many there are to tell apart, 2 to 10,000; ``crop``, ``random`` or ``resized``;
    ``tile``, a tile's side in pixels, 8 or more; ``chromatic``, ``grey`` or ``none``."""

    title, citation, version = "Jigsaw", "noroozi2016unsupervised", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=70,
        batch=256,
        optimiser=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, schedule=MultiStep(at=(10 / 35, 20 / 35, 30 / 35))),
        source="Noroozi & Favaro 2016; MehdiNoroozi/JigsawPuzzleSolver solver_cfn_rec.prototxt",
    )
    permutations: Tensor

    def __init__(
        self,
        backbone: Backbone,
        permutations: int = 1000,
        crop: str = "random",
        tile: int | None = None,
        chromatic: str = "grey",
    ) -> None:
        super().__init__(backbone)
        for name, value, known in (("crop", crop, CROPS), ("chromatic", chromatic, CHROMATIC)):
            if value not in known:
                raise did_you_mean(name, value, list(known))
        if not 2 <= permutations <= MOST:
            raise BenchError(f"jigsaw cannot use {permutations!r} permutations", mend=f"choose 2 to {MOST:,}")
        self.crop, self.chromatic, self.chance = crop, chromatic, 1 / permutations
        self.tile = tile_side(backbone, tile)
        self.short = transforms.short_side(backbone.input_side) if tile is None else 4 * tile
        self.cell = self.short // 3
        self.shift = max(1, round(self.tile * 2 / 64)) if chromatic == "grey" else 0
        self.register_buffer("permutations", torch.from_numpy(far_apart(permutations)))
        self.tower = Tower(backbone, self.tile, units=1024)
        joined = TILES * self.tower.width
        hidden = joined if backbone.global_pool else self.tower.narrowed(4096)
        self.fc7 = nn.Identity() if backbone.global_pool else fully_connected(joined, hidden)
        self.classifier = nn.Linear(hidden, permutations)

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S), three cells a side: short side to 256/255 of S, random crop; or a random resized one."""
        if self.crop == "resized":
            return transforms.random_resized_crop(sample.image, 3 * self.cell, generator, AREA)
        image = transforms.resize_short(sample.image, self.short)
        return transforms.random_crop(image, 3 * self.cell, generator)

    def tiles(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, 3, S, S) -> tiles in [0, 1], (B, 9, 3, t, t), row by row: cut, shifted and discoloured."""
        batch = len(images)
        top, left = patches.grid(batch, 3, self.cell, self.cell - self.tile - self.shift, generator)
        shift = torch.randint(self.shift + 1, (2, batch, TILES, 3), generator=generator, device=images.device)
        tiles = patches.cut(images, top[..., None] + shift[0], left[..., None] + shift[1], self.tile) / 255
        if self.chromatic == "none":
            return tiles
        draw = torch.rand(batch, 1, 1, 1, 1, generator=generator, device=images.device)
        tiles = torch.where(draw < 0.75, patches.project(tiles), tiles)
        return torch.where(draw < 0.5, patches.grey(tiles), tiles)

    def puzzles(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tiles as :meth:`tiles` gives them, each image's by a permutation; and int64 (B,), by which."""
        tiles = self.tiles(images, generator)
        answer = torch.randint(
            len(self.permutations), (len(images),), generator=generator, device=self.permutations.device
        )
        rows = torch.arange(len(images), device=images.device)[:, None]
        return tiles[rows, self.permutations[answer]], answer

    def solve(self, puzzles: Tensor) -> Tensor:
        """Shuffled tiles in [0, 1], (B, 9, 3, t, t) -> logits (B, n)."""
        std = torch.tensor(IMAGENET["std"], device=puzzles.device).view(3, 1, 1)
        features = self.tower(self.backbone, around_mean(patches.standardise(puzzles) * std))
        return self.classifier(self.fc7(features.flatten(1)))

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Each image's puzzle, as the network puts it back, and as it was."""
        puzzles, answer = self.puzzles(batch.views, generator)
        rows = torch.arange(len(batch), device=answer.device)[:, None]
        orders = [self.permutations[k].argsort(1) for k in (self.solve(puzzles).argmax(1), answer)]
        return torch.stack([self._sheet(puzzles), *(self._sheet(puzzles[rows, order]) for order in orders)], 1)

    def _sheet(self, tiles: Tensor) -> Tensor:
        """Nine tiles (B, 9, 3, t, t) -> uint8 (B, 3, 3t + 2, 3t + 2), side by side."""
        sheet = tiles.new_ones(len(tiles), 3, 3 * self.tile + 2, 3 * self.tile + 2)
        for k in range(TILES):
            top, left = (self.tile + 1) * (k // 3), (self.tile + 1) * (k % 3)
            sheet[:, :, top : top + self.tile, left : left + self.tile] = tiles[:, k]
        return to_bytes(sheet)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Cross-entropy over the permutations; each image is one puzzle."""
        puzzles, answer = self.puzzles(batch.views, generator)
        logits = self.solve(puzzles)
        accuracy = (logits.argmax(1) == answer).float().mean()
        yield "main", Loss(F.cross_entropy(logits, answer), {"accuracy": accuracy})
