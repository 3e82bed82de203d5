"""The words in which training for segmentation is written: a section of ``voc12_segmentation.toml``.

Every key is obeyed by ``voc12_segmentation.py``, ``bench/engines/mmseg.py`` or ``transfer.py``, and a key or value that
is not known here is refused. Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from bench import registry
from bench.protocols.multilabel import setting_names
from bench.protocols.transfer import Transfer
from bench.suite import Strict
from bench.training.recipe import MultiStep, Poly


class Fcn32s(Strict):
    """fc6 and fc7 as convolutions, one score a class, fixed bilinear upsampling by the stride of fc6 (32)."""

    kind: Literal["fcn32s"]
    pad: NonNegativeInt
    """Zeros around the preprocessed image, in pixels, so that fc6 covers its borders."""


class FcnD8(Strict):
    """mmsegmentation's FCN heads on res5 and, in training, res4, which keep the size of res3 and are dilated."""

    kind: Literal["fcn-d8"]
    auxiliary: NonNegativeFloat
    """The weight of the loss on res4."""


class Longest(Strict):
    """The long side, where it is longer than so many pixels, is brought down to them; 0: images are as they are."""

    longest: NonNegativeInt

    def of(self, height: int, width: int) -> tuple[int, int]:
        """The size to which an image is brought."""
        long = max(height, width)
        if not self.longest or long <= self.longest:
            return height, width
        return max(1, round(height * self.longest / long)), max(1, round(width * self.longest / long))


class Short(Strict):
    """The short side is brought to so many pixels, whatever the image has."""

    short: PositiveInt

    def of(self, height: int, width: int) -> tuple[int, int]:
        """The size to which an image is brought."""
        low = min(height, width)
        return round(height * self.short / low), round(width * self.short / low)


class WholeImages(Strict):
    """Image after image goes through the net alone, at its own size and as it is."""

    kind: Literal["whole"]


class Crops(Strict):
    """Random squares of randomly scaled images, mirrored half of the time; what lies outside counts for nothing."""

    kind: Literal["crops"]
    side: PositiveInt
    scale: tuple[PositiveFloat, PositiveFloat]
    """An image's size is multiplied by something between these, uniformly."""


class Steps(Strict):
    """The rate is multiplied by ``gamma`` whenever another 1 / ``parts`` of training is done."""

    kind: Literal["steps"]
    parts: PositiveFloat
    gamma: PositiveFloat

    def schedule(self) -> MultiStep:
        """In the words of a recipe."""
        return MultiStep.in_parts(self.parts, self.gamma)


class Polynomial(Strict):
    """The rate falls to 0 as (1 - done) ** ``power``."""

    kind: Literal["poly"]
    power: PositiveFloat

    def schedule(self) -> Poly:
        """In the words of a recipe."""
        return Poly(self.power)


class Setting(Strict):
    """What learns, and how fast: one column group."""

    frozen: tuple[str, ...]
    """Stages, or ``trunk`` for all of them; empty: everything learns."""
    lr: PositiveFloat
    drop: Annotated[Steps | Polynomial, Field(discriminator="kind")]


class Segmentation(Strict):
    """One variant: a class for every pixel, trained by SGD with cross-entropy, in one or more settings at once."""

    deviations: tuple[str, ...]
    """In what the variant differs from what was published; for people, and part of the identity all the same."""
    sides: tuple[PositiveInt, ...]
    """Input sides of the backbones that it measures, and of a suite's usual backbone; empty: any."""
    transfer: Transfer
    net: Annotated[Fcn32s | FcnD8, Field(discriminator="kind")]
    # data
    size: Longest | Short
    """Of the images, in training and testing. Predictions are held against the masks at the masks' own size."""
    train: Annotated[WholeImages | Crops, Field(discriminator="kind")]
    kernel: Literal["bilinear", "bicubic", "nearest"]
    antialias: bool
    # training
    batch: PositiveInt
    """Images an update; a whole image's loss is the mean over its pixels, the batch's the mean over images."""
    iterations: PositiveInt
    """Updates: of a Caffe solver with batch 1 and ``iter_size`` 20, its iterations, of 20 images each."""
    momentum: float = Field(ge=0, lt=1)
    weight_decay: NonNegativeFloat
    output_bias_rate: PositiveFloat
    """The learning rate of the scores' biases, in multiples of all other parameters'."""
    output_bias_decay: NonNegativeFloat
    """Their weight decay, in multiples of ``weight_decay``."""
    settings: Annotated[dict[str, Setting], Field(min_length=1), AfterValidator(setting_names)]
    """By name, as columns have it: ``fc6-8``, ``all``. Each trains its own copy of the net on the same images."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if isinstance(self.net, Fcn32s) and not self.transfer.fc:
            raise ValueError("fcn32s needs fc6 and fc7: transfer.fc")
        if isinstance(self.train, WholeImages) and self.net.kind != "fcn32s":
            raise ValueError(f"{self.net.kind} trains on crops: its BatchNorm needs batches")
        return self

    def obstacle(self, backbone: str, usual: str) -> str:
        """Why ``backbone`` cannot be measured at a suite whose usual backbone is another; empty where it can."""
        if self.sides and not {registry.shape(name).get("input_side") for name in (backbone, usual)} <= set(self.sides):
            return f"needs {'/'.join(map(str, self.sides))} px"
        if isinstance(self.net, FcnD8) and "res5" not in registry.shape(backbone).get("stages", ()):
            return f"{backbone} has no res5"
        return self.transfer.obstacle(backbone)
