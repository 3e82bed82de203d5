"""The words in which training for segmentation is written: a section of ``voc12_segmentation.toml``.

Beside those of ``settings.py``, every key is obeyed by ``voc12_segmentation.py`` or ``bench/engines/mmseg.py``, and a
key or value that is not known is refused. Imports no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bench.protocols import settings
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


class Steps(settings.InParts):
    """The rate is multiplied by ``gamma`` whenever another 1 / ``parts`` of training is done."""

    kind: Literal["steps"]


class Polynomial(Strict):
    """The rate falls to 0 as (1 - done) ** ``power``."""

    kind: Literal["poly"]
    power: PositiveFloat

    def schedule(self) -> Poly:
        """In the words of a recipe."""
        return Poly(self.power)


class Setting(settings.Setting):
    """What learns, and how fast: one column group. Here fc6 and fc7 always learn."""

    drop: Annotated[Steps | Polynomial, Field(discriminator="kind")]

    def schedule(self) -> MultiStep | Poly:
        """In the words of a recipe."""
        return self.drop.schedule()


class Segmentation(settings.SideBySide[Setting]):
    """One variant: a class for every pixel, trained by SGD with cross-entropy, in one or more settings at once.

    A whole image's loss is the mean over its pixels, the batch's the mean over images. An iteration is an update: of a
    Caffe solver with batch 1 and ``iter_size`` 20, one of its iterations, of 20 images.
    """

    net: Annotated[Fcn32s | FcnD8, Field(discriminator="kind")]
    # data
    size: Longest | Short
    """Of the images, in training and testing. Predictions are held against the masks at the masks' own size."""
    train: Annotated[WholeImages | Crops, Field(discriminator="kind")]
    kernel: Literal["bilinear", "bicubic", "nearest"]
    antialias: bool
    # training
    output_bias_rate: PositiveFloat
    """The learning rate of the scores' biases, in multiples of all other parameters'."""
    output_bias_decay: NonNegativeFloat
    """Their weight decay, in multiples of ``weight_decay``."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if isinstance(self.net, Fcn32s) and not self.transfer.fc:
            raise ValueError("fcn32s needs fc6 and fc7: transfer.fc")
        if isinstance(self.train, WholeImages) and self.net.kind != "fcn32s":
            raise ValueError(f"{self.net.kind} trains on crops: its BatchNorm needs batches")
        return self

    def needs(self) -> tuple[str, ...]:
        """res5, where a head stands on it."""
        return ("res5",) if isinstance(self.net, FcnD8) else ()
