"""NAT, noise as targets: send every image to a point of its own on the sphere, and let images swap their points.

Fix as many random points on the unit sphere as there are images, and train the network so that each image lands on
the one it was given. Outputs that must fill the sphere cannot collapse; images that may swap points end with similar
ones near each other, because that is easiest to fit.

Paper: Bojanowski, Joulin, "Unsupervised Learning by Predicting Noise", ICML 2017, section 3; figures from the
authors' release (noise-as-targets ``main.lua``, ``alexnet.lua``).

Shapes: crops (B, 3, S, S) -> Sobel edges (B, 2, S, S) -> trunk -> fc6, fc7 -> linear, d -> outputs z (B, d) of unit
length; d is 2,048. Targets are n unit vectors of Gaussian direction. Loss: the mean over the batch of |z - c|^2.

In the epochs 0, 3, 6, ... each batch first re-assigns its own targets: the permutation of them that maximises the sum
of z . c over the batch, found exactly (Hungarian algorithm; 1.5 to 7 ms for 256 images, beside 3 ms for the scores). It
stays a permutation of all targets for ever. Dropout is on while assigning, as in the release.

Memory: a target is not stored. It is a pure function of (seed, number of the target), computed where it is needed
(:func:`noise`): 5 ms for 256 x 2,048 on one CPU core, a few dozen integer and float operations a number on a GPU,
without a transfer. Kept for each image is the number of its target, 4 bytes in a buffer, so also in checkpoints: 5 MB
for 1.28 million images, where the vectors would take 10.5 GB. Nothing else grows with the data, but for the loop's
order of an epoch (8 bytes an image).

Several processes: outputs of all are gathered (2 MB an update), and the first one's assignment holds in all, so the
targets are the same everywhere, and a checkpoint at any update is whole. With micro-batches the assignment is within a
micro-batch (of all processes): like BatchNorm's, it is then a smaller batch than the recipe's, and recorded.

Options: ``dim``, d; 2,048 on AlexNet, half as wide as fc7 on any backbone. ``period``, 3: epochs between two with
re-assignment.

Pretext metric: ``nearer``, the share of held-out images whose output is nearer (cosine) to its target than to another
image's. Held-out images have no target, so each batch of 256 draws fresh ones and assigns them best, to one crop of
each image; another crop of it is then measured. (Measured on the crop that they were assigned to, an untrained network
scores as high as a trained one: its outputs fill the sphere as well, at random.) Guessing, or outputs that are all
alike, score 0.5. An untrained network is above that, for crops of an image share edges: ``untrained``, beside it, is
what this network scored before training, on 256 training images. The gain over it is what was learned: outputs that
spread, and that stay with the image.

Deviations from the paper:
- The rate is the release's, constant; the paper's is said to fall late in training (unconfirmed). The release
  adds squared errors up over the batch, at 0.01: over the mean that is 0.01 x 256 = 2.56. No momentum, no decay, as
  there.
- Edges are those of the preset ``sobel``: after ImageNet's channel statistics, where the release standardises each
  image and filters with the opposite sign.
- Layers are narrower on narrower backbones; trunks that end in a global average have the output layer only.
- Scores are assigned in floating point; the release rounds them to 100,000 steps.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbones.heads import Top
from bench.data import transforms
from bench.errors import BenchError
from bench.methods import _sobel
from bench.methods.base import SGD, Backbone, Batch, Loss, PretextTask, Recipe, Step
from bench.training.device import as_first, rows_of_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.data.base import Dataset, Sample

_GOLDEN, _FIRST, _SECOND = (x - 2**64 for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""SplitMix64's constants, as signed words."""


class NoiseAsTargets(PretextTask):
    """Options: ``dim``, of the sphere's space, from 2; ``period``, in epochs, between re-assignments, from 1."""

    title, citation, version = "NAT", "bojanowski2017unsupervised", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=100,
        batch=256,
        optimiser=SGD(lr=2.56, momentum=0.0),
        source="noise-as-targets main.lua, main.sh: 0.01 on the sum over a batch of 256",
    )
    metric, chance = "nearer", 0.5
    heldout_batch = 256

    seed: Tensor
    target_of: Tensor
    untrained: Tensor

    def __init__(self, backbone: Backbone, dim: int | None = None, period: int = 3) -> None:
        super().__init__(_sobel.on_edges(backbone))
        for name, value, least in (("dim", dim, 2), ("period", period, 1)):
            if value is not None and value < least:
                raise BenchError(f"nat cannot use {name} {value!r}", mend=f"choose a whole number from {least} on")
        self.period = period
        self.top = Top(self.backbone, dropout=0.5)
        self.top.layers = self.top.layers[1:]  # dropout stands between fc6 and fc7 only
        self.dim = dim or max(2, self.top.width // 2)
        self.output = nn.Linear(self.top.width, self.dim)
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("untrained", torch.zeros(()))

    def setup(self, dataset: Dataset) -> None:
        """The number of each image's target."""
        self.register_buffer("target_of", torch.arange(len(dataset), dtype=torch.int32))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """Draws the targets' seed, and measures the untrained network."""
        self.seed.copy_(torch.randint(2**62, (), generator=generator))
        fresh = copy.deepcopy(self).eval()
        for module in fresh.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()  # it has no statistics yet but the batch's
        numpy_generator = np.random.default_rng(int(self.seed))
        drawn = torch.randperm(len(dataset), generator=generator)[: self.heldout_batch].tolist()
        views = torch.stack([self.heldout_view(dataset[i], numpy_generator) for i in drawn])
        with torch.no_grad():
            first, second = (fresh(crops) for crops in views.to(self.seed.device).unbind(1))
            self.untrained.copy_(stays(first, second, generator))

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): short side to 256/224 of S, random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self.backbone.input_side, generator)

    def heldout_view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (2, 3, S, S): two such crops."""
        return torch.stack([self.view(sample, generator), self.view(sample, generator)])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, d), of unit length."""
        hidden = self.top(self.backbone(images, self.backbone.stages[-1:]))
        return F.normalize(self.output(hidden).float(), dim=1)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Squared distances to the targets, which the batch re-assigns first where the epoch is one for it."""
        outputs = self(batch.views)
        if step.epoch % self.period == 0:
            self._reassign(batch.index, outputs.detach())
        targets = noise(self.target_of[batch.index], self.dim, self.seed)
        yield "main", Loss((outputs - targets).square().sum(1).mean(), {"nearer": nearer(outputs, targets, generator)})

    def heldout(self, batch: Batch, step: Step, generator: torch.Generator) -> dict[str, Tensor]:
        """The share that is nearer to fresh targets, and the same before training."""
        first, second = (self(crops) for crops in batch.views.unbind(1))
        return {"nearer": stays(first, second, generator), "untrained": self.untrained}

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Two crops of each image, and the first one's edges as the network sees them."""
        return torch.cat([batch.views, _sobel.drawn(self.backbone, batch.views[:, 0])], 1)

    def _reassign(self, index: Tensor, outputs: Tensor) -> None:
        """Permute the targets of the images at ``index``, those of all processes, in the table that all hold."""
        index, outputs = rows_of_all(index), rows_of_all(outputs)
        held = self.target_of[index]
        self.target_of[index] = held[as_first(assign(outputs, noise(held, self.dim, self.seed)))]


def assign(outputs: Tensor, targets: Tensor) -> Tensor:
    """int64 (B,): which of the targets (B, d) each of the outputs (B, d) gets, so that the sum of cosines is largest.

    Exact; solved on the CPU.
    """
    from scipy.optimize import linear_sum_assignment

    scores = _products(outputs, targets).nan_to_num().cpu().numpy()  # the loop reports what is not finite
    return torch.from_numpy(linear_sum_assignment(scores, maximize=True)[1]).to(outputs.device)


def stays(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """:func:`nearer` for the outputs (B, d) of second crops, with fresh targets, assigned to those of the first."""
    drawn = torch.randn(first.shape, generator=generator, device=generator.device).to(first.device)
    targets = F.normalize(drawn, dim=1)
    return nearer(second, targets[assign(first, targets)], generator)


def nearer(outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """The share of outputs (B, d) that are nearer to their own target than to a random other one of the batch."""
    order = torch.randperm(len(outputs), generator=generator, device=generator.device).to(outputs.device)
    other = torch.empty_like(targets)
    other[order] = targets[order.roll(1)]
    own = (outputs * targets).sum(1)
    return (own > (outputs * other).sum(1)).float().mean()


def noise(number: Tensor, dim: int, seed: Tensor) -> Tensor:
    """The targets of those numbers (B,): float32 (B, dim), uniform on the unit sphere, a function of (seed, number).

    Normal numbers by Box and Muller's method from the two halves of 64-bit words, which SplitMix64 (Steele, Lea, Flood
    2014) makes of the seed, the number and a running count. All in batched integer arithmetic, which is the same on
    every device; the logarithm and the cosine are the device's own.
    """
    key = mixed(seed + (number.long() + 1) * _GOLDEN)[:, None]
    count = torch.arange(1, (dim + 1) // 2 + 1, device=number.device)
    words = mixed(key + count * _GOLDEN)
    upper, lower = (((half & 0xFFFFFFFF).float() + 0.5) / 2**32 for half in (words >> 32, words))
    radius, angle = (-2 * upper.log()).sqrt(), 2 * math.pi * lower
    return F.normalize(torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :dim], dim=1)


def mixed(words: Tensor) -> Tensor:
    """int64 (...) -> int64 (...): SplitMix64's output function, on words read as unsigned."""
    words = (words ^ (words >> 30 & (1 << 34) - 1)) * _FIRST
    words = (words ^ (words >> 27 & (1 << 37) - 1)) * _SECOND
    return words ^ (words >> 31 & (1 << 33) - 1)


def _products(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):  # small differences count
        return a.float() @ b.float().T
