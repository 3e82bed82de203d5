"""NIN: Network in Network, the trunk of the Rotation paper's CIFAR-10 tables.

block1 | block2 | block3 | ...; a bar ends a stage. A block is a convolution that looks around (5 x 5 in block1 and
block2, 3 x 3 from block3 on) and two of 1 x 1, each without bias, with BatchNorm and ReLU; widths are 192, 160, 96 in
block1 and 192 elsewhere. block1 ends in a 3 x 3 max pool, block2 in a 3 x 3 average pool, both with stride 2 and
padding 1, and they are tapped after their pools, as in the released code: of 32 pixels 16, 8, 8, 8, 8.

- ``nin-3``, ``nin-4``, ``nin-5``: Gidaris et al. 2018, tables 1-3, with 3, 4 and 5 blocks, on images over CIFAR-10's
  channel statistics; gidariss/FeatureLearningRotNet architectures/NetworkInNetwork.py, ``use_avg_on_conv3`` false.
- ``nin-smoke``: four narrow blocks, for tests.

After Lin, Chen, Yan, "Network In Network", ICLR 2014.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from bench.backbones.base import Backbone
from bench.backbones.initialise import he_normal_
from bench.backbones.preprocess import Preprocess
from bench.errors import did_you_mean

NORMS = ("batch", "none")
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
"""At the end of block1 and block2."""


class NIN(Backbone):
    """Stages block1, block2, ..., three convolutions each.

    Args:
        stages: the blocks.
        first: output channels of block1's convolutions.
        width: output channels of all others.
        norm: ``batch``: BatchNorm after every convolution; ``none``: the twin without, whose convolutions have biases.
        preprocess: a name of ``bench.backbones.preprocess.PRESETS``, or what ``Preprocess.to_dict`` gives.
        input_side: pixels of a training crop.

    Weights are He-normal over the fan-out, as the Rotation paper's, biases 0.

    Raises:
        BenchError: an unknown ``norm`` or ``preprocess``.
    """

    title, citation, version = "Network in Network", "lin2014network", 1
    variants = {
        "nin-3": {"stages": ("block1", "block2", "block3")},
        "nin-4": {},
        "nin-5": {"stages": ("block1", "block2", "block3", "block4", "block5")},
        "nin-smoke": {"first": (16, 16, 8), "width": 16, "input_side": 28},
    }
    stages: tuple[str, ...] = ("block1", "block2", "block3", "block4")
    input_side = 32
    global_pool = True

    def __init__(
        self,
        stages: Sequence[str] = stages,
        first: Sequence[int] = (192, 160, 96),
        width: int = 192,
        norm: str = "batch",
        preprocess: str | dict[str, Any] = "cifar10",
        input_side: int = input_side,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise did_you_mean("norm", norm, list(NORMS))
        self.stages, self.input_side = tuple(stages), input_side
        self.preprocess = Preprocess.of(preprocess)
        self.in_channels = inputs = self.preprocess.channels
        for i, stage in enumerate(self.stages):
            widths = first if i == 0 else (width, width, width)
            kernel = 5 if i < len(POOLS) else 3
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for k, outputs in enumerate(widths, start=1):
                size = kernel if k == 1 else 1
                layers[f"conv{k}"] = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=norm == "none")
                if norm == "batch":
                    layers[f"norm{k}"] = nn.BatchNorm2d(outputs)
                layers[f"relu{k}"] = nn.ReLU(inplace=True)
                inputs = outputs
            if i < len(POOLS):
                layers["pool"] = POOLS[i](3, 2, 1)
            self.add_module(stage, nn.Sequential(layers))
        he_normal_(self)

    def chain(self) -> dict[str, nn.Module]:
        """Every layer but the preprocessing, in forward order, which is the order they were added in."""
        return {f"{s}.{name}": layer for s in self.stages for name, layer in self.get_submodule(s).named_children()}
