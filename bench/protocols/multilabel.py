"""The words in which fine-tuning on images with several labels is written: a section of ``voc07_classification.toml``.

Beside those of ``settings.py``, every key is obeyed by ``voc07_classification.py``, and a key or value that is not
known is refused. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from bench.protocols import settings
from bench.suite import Strict
from bench.training.recipe import SGD


class AreaCrops(Strict):
    """A rectangle of a random share of the image's area and of random shape, at the backbone's input side."""

    kind: Literal["area"]
    area: tuple[PositiveFloat, PositiveFloat]
    """Between these shares, uniformly."""
    ratio: tuple[PositiveFloat, PositiveFloat]
    """Width / height, log-uniform."""


class ScaledCrops(Strict):
    """A square of random size in pixels, however large the image is, at the backbone's input side."""

    kind: Literal["scale"]
    scale: tuple[PositiveFloat, PositiveFloat]
    """Its side is uniform between these multiples of the input side, of which the upper one shrinks to what fits."""


class RandomCrops(Strict):
    """So many crops, drawn (and mirrored) as in training; their scores are added up."""

    kind: Literal["random"]
    crops: PositiveInt


class CentreCrop(Strict):
    """The central square of the image, whose short side is at ``short`` times the crop's."""

    kind: Literal["centre"]
    short: float = Field(ge=1)


class NormalOutput(Strict):
    """The output layer starts at N(0, std)."""

    kind: Literal["normal"]
    std: NonNegativeFloat
    bias: float


class UniformOutput(Strict):
    """The output layer starts uniform within 1 / sqrt(features), as torch's ``Linear``."""

    kind: Literal["uniform-by-features"]
    bias: float


class Setting(settings.InParts, settings.Setting):
    """What learns, and how fast: one column group."""


class FineTuning(settings.SideBySide[Setting]):
    """One variant: sigmoids on top of the net, trained by SGD with cross-entropy, in one or more settings at once."""

    output: Annotated[NormalOutput | UniformOutput, Field(discriminator="kind")]
    # data
    train: Annotated[AreaCrops | ScaledCrops, Field(discriminator="kind")]
    flip: bool
    """Mirrored with probability one half."""
    test: Annotated[RandomCrops | CentreCrop, Field(discriminator="kind")]
    kernel: Literal["bilinear", "bicubic", "nearest"]
    antialias: bool
    # training
    nesterov: bool
    bias_rate: PositiveFloat
    """The biases' learning rate, in multiples of the weights'."""
    bias_decay: NonNegativeFloat
    """The biases' weight decay, in multiples of ``weight_decay``."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient."""
    loss: Literal["sum", "mean"]
    """Over the classes of an image; what is only there as difficult counts for nothing. Then the mean over images."""
    statistics: Literal["fixed", "batch"]
    """Whether BatchNorm, where there is any, uses the running statistics of pretraining or learns on."""
    frozen_affine: bool = False
    """Whether the scale and shift of BatchNorm learn also in what is frozen."""
    # metric
    ap: Literal["11-point", "area", "step"]
    """A kind of :data:`bench.metrics.average_precision.KINDS`; ``step`` is scikit-learn's."""
    tie_break: bool
    """Whether images of the class lose against all others within 1e-5."""

    def optimiser(self, setting: Setting) -> SGD:
        """Of one setting."""
        return replace(super().optimiser(setting), nesterov=self.nesterov, clip=self.clip)
