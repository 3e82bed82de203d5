"""Colorization: from the lightness of an image, predict its colours.

Whoever can tell the colour of a thing has recognised the thing. The trunk sees L alone, and at each place of a
coarse map a classifier says which of 313 bins of the ab plane holds the colour; as many colours are plausible for
one thing, it predicts a distribution, and rare colours count more, or all would come out grey.

Paper: Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, sections 2.1-2.3 and 3.2; network and figures
of training from the authors' released ``train_alexnet``.

Shapes: crops (B, 3, S, S); L - 50 is (B, 1, S, S), in [-50, 50]. The last stage is (B, C, h, h), and so are the
logits (B, 313, h, h), then enlarged bilinearly to the target: a and b of every pixel in S // 2h, about twice as fine
(AlexNet at 224 px: h 13, every 8th pixel, 28 x 28). The head is fully convolutional: fc6 with dilation 2, fc7, 313.

Loss: cross-entropy with the soft code of the colour, its 10 nearest bins weighted by a Gaussian with sigma 5, times
the weight of its nearest bin q, w(q) = 1 / ((1 - lambda) p(q) + lambda / 313) up to a factor such that the mean of w
under p is 1; lambda is 0.5. The prior p is the mean soft code of the data, that is its histogram smoothed by the
same Gaussian. Images without colour (no |a| or |b| above 5) have no weight.

Pretext metric: ``rebalanced_accuracy``, the share of the places whose likeliest bin is the nearest one, where each
place has its weight of the loss. Always naming the one bin that is then the best scores ``chance``, measured in
``prepare``. Plain ``accuracy`` is reported too, but the loss does not aim at it.

The exported backbone takes lightness: its ``preprocess`` is ``l``. One that takes it already is trained as it is.

Option: ``neighbours``, bins of a soft code: 10 as released, or 5 as the paper says.

Deviations from the paper:
- Crops have the backbone's side and keep the shape of the image; the released ones are 180 px of 256 x 256.
- The prior comes from 1,280 images, not from all.
- fc6 spans the map of the backbone at hand, and fc6 and fc7 are narrower in proportion: see ``DenseTop``. ResNets and
  NINs have the output layer alone. Goyal et al. 2019 colour with ``resnet50-s16``; their head is unconfirmed.
- BatchNorm is affine, and pools have no padding, as in the other methods here; weights are He-normal, where the
  release initialises by k-means.
- The weight multiplies the loss; the release multiplies the gradient, which is the same.
- Weight decay is decoupled from Adam; Adam's beta2 is 0.999, as in the released AlexNet's solver.
- Soft codes are those of the middle of the colour's cell, one unit of a and b wide (bench/data/ab_bins.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.backbones.base import twin
from bench.backbones.preprocess import Preprocess
from bench.data import draws, transforms
from bench.data.ab_bins import AbBins
from bench.errors import BenchError
from bench.methods._dense import DenseTop, drawn, enlarged
from bench.methods.base import Adam, Backbone, Batch, Loss, PretextTask, Recipe, Step, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Dataset, Sample

UNIFORM = 0.5
"""Lambda: the share of the uniform distribution that is mixed into the prior."""
GREY = 5.0
"""An image has colour where |a| or |b| exceeds this."""


class Colorization(PretextTask):
    """Options: ``neighbours``, bins of a soft code."""

    title, citation, version = "Colorization", "zhang2016colorful", 1
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = Recipe(
        epochs=28,
        batch=80,
        optimiser=Adam(
            lr=3e-5,
            betas=(0.9, 0.999),
            weight_decay=1e-3,
            schedule=Table(rows=((24 / 45, 1.0), (30 / 45, 1 / 3), (40 / 45, 0.1), (1.0, 1 / 30))),
        ),
        source="richzhang/colorization train_alexnet/solver0-3.prototxt: 450,000 updates, 28 epochs of ImageNet",
    )
    metric = "rebalanced_accuracy"
    weights: Tensor
    guess: Tensor

    def __init__(self, backbone: Backbone, neighbours: int = 10) -> None:
        if not 1 <= neighbours <= 50:
            raise BenchError(
                f"colorization has no soft code of {neighbours} bins", mend="choose 10, as released, or 5, as the paper"
            )
        takes_lightness = backbone.preprocess.space == "l"
        super().__init__(backbone if takes_lightness else twin(backbone, preprocess="l"))
        self.lab = Preprocess.named("lab")
        self.bins = AbBins(neighbours)
        shape = self.backbone.shapes()[self.backbone.stages[-1]]
        self.stride = max(1, self.backbone.input_side // (2 * shape.height))
        self.top = DenseTop(shape, len(self.bins), pointwise=backbone.global_pool)
        self.register_buffer("weights", torch.ones(len(self.bins)))
        self.register_buffer("guess", torch.zeros(()))

    @property
    def chance(self) -> float:  # type: ignore[override]  # a buffer: it outlives a restart
        """What the best single bin scores."""
        return float(self.guess)

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """The weights of the bins, and the best guess, from 1,280 images.

        Raises:
            BenchError: none of them has colour.
        """
        batches = draws.batches(dataset, self.backbone.input_side, count=10, size=128, generator=generator)
        targets = [self._target(self.lab(images.to(self.weights.device))) for images in batches]
        hard, soft = (sum(h) for h in zip(*(self.bins.histogram(ab[_coloured(ab)]) for ab in targets), strict=True))
        if not hard.sum():
            raise BenchError("the images have no colour", where=dataset.name, mend="colorization needs colour images")
        prior = soft / soft.sum()
        weights = 1 / ((1 - UNIFORM) * prior + UNIFORM / len(self.bins))
        self.weights.copy_(weights / (prior * weights).sum())
        self.guess.copy_((hard * weights).max() / (hard * weights).sum())

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): short side to 256/224 of S, random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self.backbone.input_side, generator)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Rebalanced cross-entropy with the soft codes, the mean over all places of all images."""
        lab = self.lab(batch.views)
        ab = self._target(lab)
        logits = enlarged(self._logits(lab), ab)
        code = self.bins.encode(ab)
        nearest = code[0][:, 0]
        weight = self.weights[nearest] * _coloured(ab)[:, None, None]
        total = (self.bins.cross_entropy(logits, code) * weight).mean()
        right = (logits.argmax(1) == nearest).float()
        rebalanced = (right * weight).sum() / weight.sum().clamp(min=1e-6)
        yield "main", Loss(total, {"rebalanced_accuracy": rebalanced, "accuracy": right.mean()})

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """What the network sees, its colours (the annealed mean), and the true ones."""
        lab = self.lab(batch.views)
        told = enlarged(self.bins.decode(self._logits(lab)), lab)
        grey, coloured = (drawn(torch.cat([lab[:, :1], ab], 1)) for ab in (torch.zeros_like(told), told))
        return torch.stack([grey, coloured, batch.views], 1)

    def _logits(self, lab: Tensor) -> Tensor:
        last = self.backbone.stages[-1]
        return self.top(self.backbone.trunk(lab[:, :1], (last,))[last])

    def _target(self, lab: Tensor) -> Tensor:
        return lab[:, 1:, :: self.stride, :: self.stride]


def _coloured(ab: Tensor) -> Tensor:
    """bool (B,): whether an image has any colour."""
    return ab.abs().amax((1, 2, 3)) > GREY
