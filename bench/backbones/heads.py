"""The fully connected layers that methods put on a trunk while it learns; never measured.

The trunk decides what they stand on (``Backbone.global_pool``): AlexNets have pool5, fc6 and fc7; ResNets and NINs are
averaged over all places, and nothing but a method's own layers follows.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.backbones.base import Backbone


class Top(nn.Module):
    """A backbone's last stage -> one vector an image.

    On AlexNets pool5 -> fc6 -> fc7, each fc without bias, with BatchNorm and ReLU; at the papers' scale 256 x 6 x 6 =
    9,216 -> 4,096 -> 4,096 (Gidaris et al. 2018, released configuration), on narrower ones less in the same proportion.
    Where the trunk has ``global_pool``, the global average alone, as in OpenSelfSup, VISSL and Kolesnikov et al. 2019
    on ResNet-50, and in the Rotation paper on NINs; there ``dropout`` means nothing.
    """

    def __init__(self, backbone: Backbone, dropout: float = 0.0) -> None:
        super().__init__()
        self.stage = backbone.stages[-1]
        shape = backbone.shapes()[self.stage]
        self.pool = pool5(backbone)
        self.width, self.layers = shape.channels, nn.Sequential()
        if not backbone.global_pool:
            features = shape.channels * ((shape.height - 3) // 2 + 1) * ((shape.width - 3) // 2 + 1)
            self.width = max(16, round(features * 4096 / 9216))
            self.layers.extend([*self._block(features, dropout), *self._block(self.width, dropout)])

    def _block(self, features: int, dropout: float) -> list[nn.Module]:
        linear = nn.Linear(features, self.width, bias=False)
        nn.init.normal_(linear.weight, std=(2 / self.width) ** 0.5)
        drop = [nn.Dropout(dropout)] if dropout else []
        return [*drop, linear, nn.BatchNorm1d(self.width), nn.ReLU(inplace=True)]

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{last stage: (B, C, h, w)} -> (B, width)."""
        return self.layers(self.pool(features[self.stage]).flatten(1))


def pool5(backbone: Backbone) -> nn.Module:
    """What lies between the last stage and a classifier: a 3 x 3 max pool with stride 2, or the global average."""
    return nn.AdaptiveAvgPool2d(1) if backbone.global_pool else nn.MaxPool2d(3, 2)
