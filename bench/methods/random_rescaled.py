"""Random rescaled: weights drawn from the data's own patches and scaled so that all layers learn at one pace.

Layer by layer, filters are k-means centres of the whitened patches that reach the layer, scaled so that every
channel has unit variance; then all layers are rescaled until their gradient-to-weight ratios agree. Nothing is
trained: it is the stronger of the two baselines that a pretext task has to beat.

Paper: Kraehenbuehl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks",
ICLR 2016, sections 3 and 4 (their ``magic_init``, types k-means and ``-cs``); the row "Random rescaled" of
Split-Brain's Table 2 is this stacked k-means initialisation with rescaling.

Deviations:
- The trunk is the suite's, built without BatchNorm (its exact identity), so no ResNet, which is no chain of layers; 10
  batches of 16 centre crops, as in the released tool, which warps images to the input square instead.
- Inputs are preprocessed as the trunk's are (RGB, unit variance), not BGR 0..255: the initialisation scales
  itself to the data, so features differ only through the patch whitening's constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.backbones import initialise
from bench.backbones.base import build
from bench.data import draws
from bench.methods.base import Backbone, PretextTask

if TYPE_CHECKING:
    import torch

    from bench.data.base import Dataset


class RandomRescaled(PretextTask):
    """Takes no options."""

    title, citation, version = "Random rescaled", "krahenbuhl2016data", 1
    role = "baseline"
    needs = {"image"}
    supports = {"alexnet", "nin"}
    recipe = None

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(build(backbone.config["backbone"], norm="none"))

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """K-means filters layer by layer, then one pace for all layers."""
        images = draws.batches(dataset, self.backbone.input_side, count=10, size=16, generator=generator)
        initialise.kmeans_(self.backbone, images, generator)
        initialise.rescale_(self.backbone, images, generator)
