"""Random: a network whose weights were drawn and never trained.

What a trunk gives for free, by its architecture alone. A method that does not beat it has learned nothing that
the protocol can see.

Source: the row "Random" (Gaussian) of Zhang, Isola, Efros, "Split-Brain Autoencoders", CVPR 2017, Table 2.

Options: ``init``
- ``he`` (default), for trunks with BatchNorm: He-normal weights, and BatchNorm statistics taken from 10
  unlabelled batches of 128 images. N(0, 0.01) under an untrained BatchNorm would underflow against its epsilon.
- ``gaussian``, the papers' Caffe default: N(0, 0.01), bias 0, no BatchNorm, on BGR 0..255 minus the mean. (On
  inputs of unit variance its activations would vanish.)

Deviations: the papers' own trunk is CaffeNet; ours is the suite's. Which initialisation a suite uses is written
in the suite and enters the row's options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.backbones import initialise
from bench.backbones.base import build
from bench.data import draws
from bench.errors import BenchError
from bench.methods.base import Backbone, PretextTask

if TYPE_CHECKING:
    import torch

    from bench.data.base import Dataset


class Random(PretextTask):
    """Options: ``init``, ``he`` or ``gaussian``."""

    title, citation, version = "Random", "zhang2017split", 1
    role = "baseline"
    needs = {"image"}
    supports = {"alexnet", "resnet", "nin"}
    recipe = None

    def __init__(self, backbone: Backbone, init: str = "he") -> None:
        if init not in {"he", "gaussian"}:
            raise BenchError(f"random knows no init {init!r}", mend="choose he or gaussian")
        if init == "gaussian":
            backbone.chain()  # refuses ResNets, which are not built without BatchNorm
            backbone = build(backbone.config["backbone"], norm="none", preprocess="caffe")
        super().__init__(backbone)
        self.init = init

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """Draw the weights; look at 10 batches for BatchNorm's statistics."""
        if self.init == "gaussian":
            initialise.gaussian_(self.backbone, std=0.01, generator=generator)
            return
        initialise.he_normal_(self.backbone, generator=generator)
        images = draws.batches(dataset, self.backbone.input_side, count=10, size=128, generator=generator)
        initialise.set_batch_norm_statistics_(self.backbone, images)
