"""What a backbone is: a trunk with named stages, and the preprocessing that travels with its weights."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench import arguments, registry
from bench.backbones.preprocess import Preprocess
from bench.errors import BenchError, did_you_mean


class Shape(NamedTuple):
    """Channels, height and width of a stage's features."""

    channels: int
    height: int
    width: int


class Backbone(nn.Module):
    """A convolutional trunk with named stages. Subclass, give ``title``, ``citation``, ``version``, ``variants``.

    ``variants`` is a literal: {key: constructor arguments}; the keys are what suites and tables name. (Without it,
    the one key is the file's or entry point's name.) Arguments are plain JSON values, because cards hold them.
    """

    title: str
    citation: str
    version: int
    variants: dict[str, dict[str, Any]] = {}
    global_pool: bool = False
    """Whether a classifier stands on the global average of its last stage (ResNet, NIN), not on pool5, fc6 and fc7."""

    stages: tuple[str, ...]
    """In forward order."""
    preprocess: Preprocess
    fc: nn.Module | None
    """fc6, fc7 where the weights bring them: the last stage's features -> (B, D); never stages."""
    in_channels: int
    """Channels of a preprocessed image."""
    input_side: int
    """The side of its square training crops, in pixels: 224, 227, ..."""
    config: dict[str, Any]
    """``{"backbone": key, "overrides": {...}}``: what :func:`build` was called with; written into cards."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = None

    def trunk(self, x: Tensor, stages: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Preprocessed (B, C, H, W) -> {stage: (B, C, h, w)} after its ReLU; stops after the last stage asked for.

        Here, each stage is the submodule of its name and takes what the one before it gives.

        Raises:
            BenchError: a stage that the backbone does not have.
        """
        wanted = self.wanted(stages)
        features: dict[str, Tensor] = {}
        for stage in self.stages:
            if len(features) == len(wanted):
                break
            x = self.get_submodule(stage)(x)
            if stage in wanted:
                features[stage] = x
        return features

    def forward(self, images: Tensor, stages: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Images (B, C, H, W), uint8 or float in [0, 1], RGB unless the data set says otherwise -> {stage: features}.

        Raises:
            BenchError: a stage that the backbone does not have.
        """
        return self.trunk(self.preprocess(images), stages)

    def wanted(self, stages: tuple[str, ...] | None) -> tuple[str, ...]:
        """The stages asked for, in forward order; all where ``None``.

        Raises:
            BenchError: a stage that the backbone does not have.
        """
        if stages is None:
            return self.stages
        for stage in stages:
            if stage not in self.stages:
                raise did_you_mean("stage", stage, list(self.stages))
        return tuple(stage for stage in self.stages if stage in stages)

    @torch.no_grad()
    def shapes(self, side: int | None = None) -> dict[str, Shape]:
        """The shape of every stage's features for square images of ``side`` pixels, by default ``input_side``."""
        side = side or self.input_side
        was_training, device = self.training, next(self.parameters()).device
        features = self.eval().trunk(torch.zeros(1, self.in_channels, side, side, device=device))
        self.train(was_training)
        return {stage: Shape(*x.shape[1:]) for stage, x in features.items()}

    def out_channels(self, stage: str) -> int:
        """Raises BenchError: a stage that the backbone does not have."""
        return self.shapes()[self.wanted((stage,))[0]].channels

    def chain(self) -> dict[str, nn.Module]:
        """Every layer from the preprocessed image on, fc included, in forward order by name.

        For trunks that are one chain; the layer-by-layer initialisations and the absorption of BatchNorm walk it.

        Raises:
            BenchError: the backbone is no chain (it has branches).
        """
        raise BenchError(f"{self.config['backbone']} is not a chain of layers", mend="choose an AlexNet")


def build(key: str, **overrides: Any) -> Backbone:
    """The backbone of that key with fresh weights; ``overrides`` replace the variant's constructor arguments.

    The weights come from torch's global generator.

    Raises:
        BenchError: unknown key or argument, or a value that the backbone refuses.
    """
    cls: type[Backbone] = registry.entry("backbones", key).load()
    arguments.check(overrides, cls, f"argument of {key}")
    made = cls(**{**cls.variants.get(key, {}), **overrides})
    made.config = {"backbone": key, "overrides": overrides}
    return made


def twin(backbone: Backbone, **overrides: Any) -> Backbone:
    """A fresh backbone that is built as ``backbone`` was, but for the ``overrides``; same preprocessing and device.

    Raises:
        BenchError: unknown argument.
    """
    config = backbone.config
    made = build(config["backbone"], **{**config["overrides"], **overrides})
    if "preprocess" not in overrides:
        made.preprocess = copy.deepcopy(backbone.preprocess)
    return made.to(next(backbone.parameters()).device).train(backbone.training)
