"""The words in which training a detector is written: a section of ``voc07_detection.toml``.

Beside those of ``settings.py``, every key is obeyed by ``voc07_detection.py`` or ``bench/engines/detectron2.py``, and a
key or value that is not known is refused. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from bench.protocols import settings
from bench.suite import Strict
from bench.training.recipe import SGD, MultiStep

Share = Annotated[float, Field(ge=0, le=1)]


class Rois(Strict):
    """The regions of an image that the head learns from, drawn from its proposals and its objects."""

    rois: PositiveInt
    """At most so many an image."""
    foreground: Share
    """At most this share of them overlap an object by ``foreground_iou`` or more, and learn its class and box."""
    foreground_iou: Share
    background_iou: tuple[Share, Share]
    """The others are background: their largest overlap is at least the first and less than the second."""
    beta: NonNegativeFloat
    """Below this error the loss of the boxes is quadratic, above it is linear; 0: linear everywhere."""

    @model_validator(mode="after")
    def _overlaps_rise(self) -> Self:
        if not self.background_iou[0] < self.background_iou[1] == self.foreground_iou:
            raise ValueError("background ends where foreground begins, and begins below it")
        return self


class FastRcnn(Rois):
    """The last stage, RoIPool to what pool5 gives, fc6 and fc7, on proposals that were found before."""

    kind: Literal["fast-rcnn"]
    search: Literal["fast", "quality"]
    """The mode of Selective Search."""
    search_short: NonNegativeInt
    """Images are shrunk so that their short side has so many pixels before they are searched; 0: not."""
    proposals: PositiveInt
    """At most so many an image."""
    published: tuple[()] | tuple[str, str]
    """Instead: files of proposals (``.pkl``, ``.mat``) of the training and of the test images."""


class FasterRcnnC4(Rois):
    """A region proposal network on res4, RoIAlign to 14 x 14, res5, and the average over all places."""

    kind: Literal["faster-rcnn-c4"]
    anchors: tuple[PositiveInt, ...] = Field(min_length=1)
    """Sides of the anchors, in pixels; each in three shapes."""
    extra_norm: bool
    """Whether a BatchNorm follows res5."""


class Setting(settings.Setting):
    """What learns, and how fast: one column group."""

    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """The shares of training, rising, after which the rate falls to a tenth."""

    def schedule(self) -> MultiStep:
        """In the words of a recipe."""
        return MultiStep(self.drops)


class Detection(settings.SideBySide[Setting]):
    """One variant: class and box of every object, trained by SGD, in one or more settings at once."""

    net: Annotated[FastRcnn | FasterRcnnC4, Field(discriminator="kind")]
    # data
    role: Literal["voc07", "voc0712"]
    """Which of the suite's data it trains and is tested on: of VOC2007, or trained on that of VOC2012 too."""
    train_short: tuple[PositiveInt, ...] = Field(min_length=1)
    """The short side of a training image becomes one of these, drawn at random."""
    train_long: PositiveInt
    """Or less, so that its long side stays within this."""
    test_short: PositiveInt
    test_long: PositiveInt
    kernel: Literal["bilinear"]
    antialias: Literal[True]
    """As detectron2's transforms resize."""
    flip: bool
    """Mirrored with probability one half."""
    difficult: bool
    """Whether difficult objects are learned from; otherwise they are part of the background."""
    # training
    warmup: Share
    """The share of training over which the rate rises from 0."""
    bias_rate: PositiveFloat
    """The biases' learning rate, in multiples of the weights'."""
    bias_decay: NonNegativeFloat
    """The biases' weight decay, in multiples of ``weight_decay``."""
    norm_decay: NonNegativeFloat
    """That of BatchNorm's scales and shifts, likewise."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient."""
    statistics: Literal["fixed", "frozen", "batch"]
    """Whether BatchNorm, where there is any, uses the running statistics of pretraining (``frozen``: and keeps its
    scales and shifts, too) or the batch's (on GPUs over all processes)."""
    precise: NonNegativeInt
    """Batches of training images over which BatchNorm's statistics are averaged anew before the test; 0: none."""
    # test and metric
    score: Share
    """Detections below it are dropped."""
    nms: Share
    """Of two detections of a class that overlap by more, the one with the higher score stays."""
    ap: Literal["11-point", "area"]
    coco: bool
    """Whether there are also AP, the mean over overlaps from 0.5 to 0.95, AP50 and AP75."""

    def needs(self) -> tuple[str, ...]:
        """res5, where it is the head."""
        return ("res5",) if isinstance(self.net, FasterRcnnC4) else ()

    def optimiser(self, setting: Setting) -> SGD:
        """Of one setting."""
        return replace(super().optimiser(setting), warmup=self.warmup, clip=self.clip)
