"""Denoising autoencoder: from an image that was corrupted, predict the clean one.

An autoencoder can copy; one whose input has lost something must know what usually stands there. Half of the values
of the input are dropped, and the network regresses the clean image on a coarse map.

Papers: Vincent, Larochelle, Lajoie, Bengio, Manzagol, "Stacked Denoising Autoencoders", JMLR 2010, sections 2.3 and
4.1 (the task and its three corruptions, on multilayer perceptrons); Zhang, Isola, Efros, "Split-Brain Autoencoders",
CVPR 2017, table 2, row "Lab(drop50) -> Lab" (AlexNet, which has no released code). The form here is the latter's.

Shapes: crops (B, 3, S, S), in Lab with L - 50. The last stage is (B, C, h, h), the head fully convolutional
(``DenseTop``) and the output (B, 3, h, h), each channel in units of its standard deviation over the data. The target
is the clean image averaged down to h x h (AlexNet at 224 px: 13 x 13; the paper: 12 x 12 from 180 px). The loss is
the mean squared error.

Corruptions (option ``corruption``), with their ``amount``:

- ``masking``: each value, of a pixel and a channel, is set to 0 (mid-grey, no colour) with probability ``amount``,
  0.5; the kept ones are divided by 1 - ``amount``, as dropout does, so that clean images have the same mean.
- ``gaussian``: noise N(0, ``amount``^2) is added to each value, in the same units; 0.5.
- ``salt-and-pepper``: each pixel turns white or black with probability ``amount``, 0.25.

Pretext metric: ``explained``, 1 - (squared error) / (squared error of the data's mean colour); the mean colour
scores 0.

The exported backbone takes Lab: its ``preprocess`` is ``lab``.

Deviations and open points:
- That single values are dropped, and that the rest is scaled, is unconfirmed: the paper only says 50 %.
- Channels are standardised, so colour counts as much as lightness; whether the paper does so is unconfirmed.
- Vincent et al. mask and blacken entries of grey images; salt and pepper hit a whole pixel here. The amounts of the
  last two are ours.
- All of the output is in the loss; Vincent et al. also weight what was corrupted.
- Recipe, crops and head are Colorization's (unconfirmed).
- BatchNorm's statistics are those of corrupted images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbones.base import twin
from bench.data import draws, transforms
from bench.errors import BenchError, did_you_mean
from bench.methods._dense import DenseTop, Standardised, averaged, drawn, enlarged, explained
from bench.methods.base import Adam, Backbone, Batch, Loss, PretextTask, Recipe, Step, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from bench.data.base import Dataset, Sample

AMOUNTS = {"masking": 0.5, "gaussian": 0.5, "salt-and-pepper": 0.25}
"""The corruptions, and how much of them unless ``amount`` says otherwise."""


class DenoisingAutoencoder(PretextTask):
    """Options: ``corruption``, ``masking``, ``gaussian`` or ``salt-and-pepper``; ``amount``, a share or a deviation."""

    title, citation, version = "Denoising autoencoder", "vincent2010stacked", 1
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
        source="as Colorization: richzhang/colorization train_alexnet/solver0-3.prototxt (unconfirmed)",
    )
    metric, chance = "explained", 0.0

    def __init__(self, backbone: Backbone, corruption: str = "masking", amount: float | None = None) -> None:
        if corruption not in AMOUNTS:
            raise did_you_mean("corruption", corruption, list(AMOUNTS))
        strength = AMOUNTS[corruption] if amount is None else amount
        if not 0 < strength < 1:
            raise BenchError(f"denoising-autoencoder cannot corrupt by {amount}", mend="choose between 0 and 1")
        super().__init__(twin(backbone, preprocess="lab"))
        self.corruption, self.amount = corruption, strength
        shape = self.backbone.shapes()[self.backbone.stages[-1]]
        self.top = DenseTop(shape, 3, pointwise=backbone.global_pool)
        self.pixels, self.target = Standardised(3), Standardised(3)
        self.height = shape.height

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """Mean and standard deviation of the channels: of pixels, and of the target, from 1,280 images."""
        device = self.target.mean.device
        batches = draws.batches(dataset, self.backbone.input_side, count=10, size=128, generator=generator)
        labs = [self.backbone.preprocess(images.to(device)) for images in batches]
        self.pixels.fit(labs)
        self.target.fit(F.adaptive_avg_pool2d(lab, self.height) for lab in labs)

    def view(self, sample: Sample, generator: np.random.Generator) -> Tensor:
        """uint8 (3, S, S): short side to 256/224 of S, random crop, perhaps mirrored."""
        return transforms.mirrored_crop(sample.image, self.backbone.input_side, generator)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """Squared error of the clean image, at the resolution of the last stage."""
        clean = self.backbone.preprocess(batch.views)
        answer = self._answer(self._corrupted(clean, generator))
        target = self.target(averaged(clean, answer))
        error = F.mse_loss(answer, target)
        yield "main", Loss(error, {"explained": explained(error, target.square().mean())})

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The corrupted image, what the network makes of it, its target, and the clean image."""
        clean = self.backbone.preprocess(batch.views)
        corrupted = self._corrupted(clean, generator)
        answer = self._answer(corrupted)
        maps = (corrupted, enlarged(self.target.back(answer), clean), enlarged(averaged(clean, answer), clean), clean)
        return torch.stack([drawn(lab) for lab in maps], 1)

    def _answer(self, lab: Tensor) -> Tensor:
        last = self.backbone.stages[-1]
        return self.top(self.backbone.trunk(lab, (last,))[last])

    def _corrupted(self, lab: Tensor, generator: torch.Generator) -> Tensor:
        if self.corruption == "gaussian":
            noise = torch.randn(lab.shape, generator=generator, device=lab.device)
            return lab + self.amount * self.pixels.std * noise
        if self.corruption == "masking":
            kept = torch.rand(lab.shape, generator=generator, device=lab.device) >= self.amount
            return lab * kept / (1 - self.amount)
        dice = torch.rand((len(lab), 1, *lab.shape[2:]), generator=generator, device=lab.device)
        white = lab.new_tensor([50.0, 0, 0]).view(1, 3, 1, 1)
        return torch.where(dice >= self.amount, lab, torch.where(dice < self.amount / 2, white, -white))
