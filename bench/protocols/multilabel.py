"""The words in which fine-tuning on images with several labels is written: a section of ``voc07_classification.toml``.

Every key is obeyed by ``voc07_classification.py`` or ``transfer.py``, and a key or value that is not known here is
refused. Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from bench import registry
from bench.protocols.transfer import Transfer
from bench.suite import Strict

T = TypeVar("T")


def setting_names(settings: dict[str, T]) -> dict[str, T]:
    """The same; raises ValueError: a name cannot be part of a column's, as in ``map@fc6-8``."""
    for name in settings:
        if not name.replace("-", "").isalnum() or name != name.lower():
            raise ValueError(f"a setting is named by lower-case letters, digits and hyphens, not {name!r}")
    return settings


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


class Setting(Strict):
    """What learns, and how fast: one column group."""

    frozen: tuple[str, ...]
    """Stages, ``trunk`` for all of them, ``fc`` for fc6 and fc7; empty: everything learns."""
    lr: PositiveFloat
    parts: PositiveFloat
    """The rate drops whenever another 1 / ``parts`` of training is done: 16 are drops every 5,000 of 80,000."""
    gamma: PositiveFloat
    """What each drop multiplies the rate by."""


class FineTuning(Strict):
    """One variant: sigmoids on top of the net, trained by SGD with cross-entropy, in one or more settings at once."""

    deviations: tuple[str, ...]
    """In what the variant differs from what was published; for people, and part of the identity all the same."""
    sides: tuple[PositiveInt, ...]
    """Input sides of the backbones that it measures, and of a suite's usual backbone; empty: any."""
    transfer: Transfer
    output: Annotated[NormalOutput | UniformOutput, Field(discriminator="kind")]
    # data
    train: Annotated[AreaCrops | ScaledCrops, Field(discriminator="kind")]
    flip: bool
    """Mirrored with probability one half."""
    test: Annotated[RandomCrops | CentreCrop, Field(discriminator="kind")]
    kernel: Literal["bilinear", "bicubic", "nearest"]
    antialias: bool
    # training
    batch: PositiveInt
    iterations: PositiveInt
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: NonNegativeFloat
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
    settings: Annotated[dict[str, Setting], Field(min_length=1), AfterValidator(setting_names)]
    """By name, as columns have it: ``fc6-8``, ``all``. Each trains its own copy of the net on the same crops."""
    # metric
    ap: Literal["11-point", "area", "step"]
    """A kind of :data:`bench.metrics.average_precision.KINDS`; ``step`` is scikit-learn's."""
    tie_break: bool
    """Whether images of the class lose against all others within 1e-5."""

    def obstacle(self, backbone: str, usual: str) -> str:
        """Why ``backbone`` cannot be measured at a suite whose usual backbone is another; empty where it can."""
        if self.sides and not {registry.shape(name).get("input_side") for name in (backbone, usual)} <= set(self.sides):
            return f"needs {'/'.join(map(str, self.sides))} px"
        return self.transfer.obstacle(backbone)
