"""The words in which a linear probe is written: a section of ``imagenet_linear.toml``. Imports no torch.

Every key is obeyed by ``heads.py`` or ``imagenet_linear.py``, and a key or value that is not known here is refused.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bench import registry
from bench.suite import Strict

PAPER_SIDES = (224, 227)
"""Pixels of the crops that the papers' backbones take."""


class LargestSquare(Strict):
    """Adaptive average pooling to the largest square with C * s^2 <= ``features``; at least 1, at most the map's."""

    kind: Literal["adaptive-avg"]
    features: PositiveInt


class AdaptiveMax(Strict):
    """Adaptive max pooling to a square of so many pixels a side."""

    kind: Literal["adaptive-max"]
    sizes: dict[str, PositiveInt]
    """By stage."""


class Average(Strict):
    """Average pooling; what is padded counts as 0."""

    kind: Literal["avg"]
    windows: dict[str, tuple[PositiveInt, PositiveInt, NonNegativeInt]]
    """Kernel, stride and padding by stage."""


class Bilinear(Strict):
    """No pooling: the map is resized bilinearly, without antialiasing."""

    kind: Literal["bilinear"]
    sizes: dict[str, PositiveInt]
    """Pixels a side, by stage."""
    align_corners: bool
    """Whether the outermost samples lie on the outermost pixels, or half a step inside."""


class NoNorm(Strict):
    """The features as they are."""

    kind: Literal["none"]


class BatchNorm(Strict):
    """Each channel by its mean and variance: the batch's over all processes in training, running ones in the test."""

    kind: Literal["batch"]
    momentum: float = Field(gt=0, le=1)
    """The weight of a new batch in the running statistics."""
    eps: PositiveFloat


class AffineBatchNorm(Strict):
    """The same, then a learnt scale and shift for each channel."""

    kind: Literal["batch-affine"]
    momentum: float = Field(gt=0, le=1)
    eps: PositiveFloat
    decay: NonNegativeFloat
    """Weight decay of scale and shift, in multiples of ``weight_decay``."""


class Normal(Strict):
    """Weights N(0, std), bias 0."""

    kind: Literal["normal"]
    std: NonNegativeFloat


class NormalByClasses(Strict):
    """Weights N(0, sqrt(2 / classes)), bias 0."""

    kind: Literal["normal-by-classes"]


class UniformByFeatures(Strict):
    """Weights and bias uniform within 1 / sqrt(features), as torch's ``Linear``."""

    kind: Literal["uniform-by-features"]


class Mixture(Strict):
    """One classifier on all stages at once: the sum of the stages' own, each times a learnt coefficient.

    The coefficients of all stages, a vector of unit length, start alike; ``lasso`` times the sum of their magnitudes is
    added to the loss, so that few stages are read.
    """

    lasso: NonNegativeFloat


class Steps(Strict):
    """The rate is multiplied by ``gamma`` after each of ``steps``, in the unit of the budget."""

    kind: Literal["steps"]
    steps: tuple[PositiveInt, ...]
    gamma: PositiveFloat


class Rows(Strict):
    """``rows`` of (until, factor), in the unit of the budget: the first with position < until multiplies the rate."""

    kind: Literal["table"]
    rows: tuple[tuple[PositiveInt, PositiveFloat], ...] = Field(min_length=1)


class InverseRoot(Strict):
    """lr / sqrt(1 + lr * weight_decay * t) at update t."""

    kind: Literal["inverse-root"]


class TrainView(Strict):
    """What is cut out of the resized image for training."""

    crop: Literal["random", "centre"]
    flip: bool
    """Mirrored with probability one half."""
    square: bool
    """Out of its central square only."""


class ResizedView(Strict):
    """Instead: a rectangle of the image as it is, of random area and shape, resized to the crop."""

    crop: Literal["resized"]
    area: tuple[PositiveFloat, PositiveFloat]
    """Between these shares of the image's, uniformly."""
    ratio: tuple[PositiveFloat, PositiveFloat]
    """Width / height, log-uniform."""
    flip: bool


class TestView(Strict):
    """The same for the test; ``ten``: four corners and the centre, and mirrored; their softmax is averaged."""

    __test__ = False
    crop: Literal["centre", "ten"]
    square: bool


Pool = Annotated[LargestSquare | AdaptiveMax | Average | Bilinear, Field(discriminator="kind")]
Norm = Annotated[NoNorm | BatchNorm | AffineBatchNorm, Field(discriminator="kind")]
Init = Annotated[Normal | NormalByClasses | UniformByFeatures, Field(discriminator="kind")]
Schedule = Annotated[Steps | Rows | InverseRoot, Field(discriminator="kind")]


class Probe(Strict):
    """One variant: softmax regression by SGD on pooled, normalised features of every stage."""

    deviations: tuple[str, ...]
    """In what the variant differs from what was published; for people, and part of the identity all the same."""
    # data
    resize: Literal["short", "square"]
    """The short side, or both, at ``resized`` pixels."""
    resized: PositiveInt
    crop: PositiveInt
    """Pixels a side."""
    scaled: bool
    """Whether ``resized`` and ``crop`` shrink and grow with the backbone's input side."""
    kernel: Literal["bilinear", "bicubic", "nearest"]
    antialias: bool
    train: Annotated[TrainView | ResizedView, Field(discriminator="crop")]
    test: TestView
    # features
    pool: Pool
    norm: Norm
    init: Init
    mixture: Mixture | None = None
    """One classifier on a mixture of the stages, named ``mixed``; None: one on each stage."""
    # training
    batch: PositiveInt
    epochs: PositiveInt | None = None
    iterations: PositiveInt | None = None
    """The budget, in the one unit or the other."""
    rates: tuple[PositiveFloat, ...] = Field(min_length=1)
    schedule: Schedule
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: NonNegativeFloat
    bias_rate: PositiveFloat
    """The bias's learning rate, in multiples of the weights'."""
    bias_decay: NonNegativeFloat
    """The bias's weight decay, in multiples of ``weight_decay``."""
    # selection
    selection: Literal["held-out top-1", "none"]
    """What chooses the rate of each stage."""
    heldout: float = Field(ge=0, lt=1)
    """Share of each class of train that is held out for it."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("the budget is either epochs or iterations")
        if self.crop > self.resized:
            raise ValueError("crop is larger than the resized image")
        if self.selection == "none" and (len(self.rates) > 1 or self.heldout):
            raise ValueError("without selection there is one rate, and nothing is held out")
        if self.selection != "none" and not self.heldout:
            raise ValueError("a rate is chosen on held-out images, so heldout is above 0")
        if self.schedule.kind == "inverse-root" and len(self.rates) > 1:
            raise ValueError("the schedule inverse-root knows one rate")
        return self

    def places(self, stages: tuple[str, ...]) -> tuple[str, ...]:
        """Where a backbone with those stages is measured; its columns are named so."""
        return ("mixed",) if self.mixture else stages

    def sides(self, input_side: int) -> tuple[int, int]:
        """Pixels of (crop, resized image) for a backbone with that input side."""
        if not self.scaled:
            return self.crop, self.resized
        return input_side, round(input_side * self.resized / self.crop)

    def obstacle(self, backbone: str, usual: str) -> str:
        """Why ``backbone`` cannot be measured at a suite whose usual backbone is another; empty where it can."""
        shape, scale = registry.shape(backbone), registry.shape(usual)
        if not self.scaled and scale.get("input_side", self.crop) not in PAPER_SIDES:
            return f"needs {'/'.join(map(str, PAPER_SIDES))} px"
        return self.misfit(shape.get("input_side", self.crop), shape.get("stages", ()))

    def misfit(self, input_side: int, stages: tuple[str, ...]) -> str:
        """Why a backbone of that input side and those stages does not fit; empty where it does."""
        if not self.scaled and input_side != self.crop:
            return f"needs {self.crop} px, the backbone takes {input_side}"
        known = _covered(self.pool)
        left = [stage for stage in stages if known is not None and stage not in known]
        return f"no pooling is published for {', '.join(left)}" if left else ""


def _covered(pool: Pool) -> set[str] | None:
    """The stages that a pool names; None: it takes any."""
    match pool:
        case LargestSquare():
            return None
        case Average():
            return set(pool.windows)
        case _:
            return set(pool.sizes)
