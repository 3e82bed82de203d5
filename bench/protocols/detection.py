"""The words in which training a detector is written: a section of ``voc07_detection.toml``.

Every key is obeyed by ``voc07_detection.py``, ``bench/engines/detectron2.py`` or ``transfer.py``, and a key or value
that is not known here is refused. Imports no torch.
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


class Setting(Strict):
    """What learns, and how fast: one column group."""

    frozen: tuple[str, ...]
    """Stages, ``trunk`` for all of them, ``fc`` for fc6 and fc7; empty: everything learns."""
    lr: PositiveFloat
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """The shares of training, rising, after which the rate falls to a tenth."""


class Detection(Strict):
    """One variant: class and box of every object, trained by SGD, in one or more settings at once."""

    deviations: tuple[str, ...]
    """In what the variant differs from what was published; for people, and part of the identity all the same."""
    sides: tuple[PositiveInt, ...]
    """Input sides of the backbones that it measures, and of a suite's usual backbone; empty: any."""
    transfer: Transfer
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
    batch: PositiveInt
    """Images an update."""
    iterations: PositiveInt
    warmup: Share
    """The share of training over which the rate rises from 0."""
    momentum: float = Field(ge=0, lt=1)
    weight_decay: NonNegativeFloat
    bias_rate: PositiveFloat
    """The biases' learning rate, in multiples of the weights'."""
    bias_decay: NonNegativeFloat
    """The biases' weight decay, in multiples of ``weight_decay``."""
    norm_decay: NonNegativeFloat
    """That of BatchNorm's scales and shifts, likewise."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient."""
    statistics: Literal["fixed", "batch"]
    """Whether BatchNorm, where there is any, uses the running statistics of pretraining or the batch's (on GPUs over
    all processes)."""
    precise: NonNegativeInt
    """Batches of training images over which BatchNorm's statistics are averaged anew before the test; 0: none."""
    settings: Annotated[dict[str, Setting], Field(min_length=1), AfterValidator(setting_names)]
    """By name, as columns have it: ``fc6-8``, ``all``. Each trains its own copy of the net on the same images."""
    # test and metric
    score: Share
    """Detections below it are dropped."""
    nms: Share
    """Of two detections of a class that overlap by more, the one with the higher score stays."""
    ap: Literal["11-point", "area"]
    coco: bool
    """Whether there are also AP, the mean over overlaps from 0.5 to 0.95, AP50 and AP75."""

    def obstacle(self, backbone: str, usual: str) -> str:
        """Why ``backbone`` cannot be measured at a suite whose usual backbone is another; empty where it can."""
        if self.sides and not {registry.shape(name).get("input_side") for name in (backbone, usual)} <= set(self.sides):
            return f"needs {'/'.join(map(str, self.sides))} px"
        if isinstance(self.net, FasterRcnnC4) and "res5" not in registry.shape(backbone).get("stages", ()):
            return f"{backbone} has no res5"
        return self.transfer.obstacle(backbone)
