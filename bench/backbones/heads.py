"""The fully connected layers that methods put on a trunk while it learns; never measured."""

from __future__ import annotations

from torch import Tensor, nn

from bench.backbones.base import Backbone


class Top(nn.Module):
    """A backbone's last stage -> pool5 -> fc6 -> fc7, each fc without bias, with BatchNorm and ReLU.

    AlexNet at the papers' scale: 256 x 6 x 6 = 9,216 -> 4,096 -> 4,096 (Gidaris et al. 2018, released
    configuration). Narrower backbones get narrower layers in the same proportion.
    """

    def __init__(self, backbone: Backbone, dropout: float = 0.0) -> None:
        super().__init__()
        self.stage = backbone.stages[-1]
        self.pool = nn.MaxPool2d(3, 2)
        shape = backbone.shapes()[self.stage]
        features = shape.channels * ((shape.height - 3) // 2 + 1) * ((shape.width - 3) // 2 + 1)
        self.width = max(16, round(features * 4096 / 9216))
        self.layers = nn.Sequential(*self._block(features, dropout), *self._block(self.width, dropout))

    def _block(self, features: int, dropout: float) -> list[nn.Module]:
        linear = nn.Linear(features, self.width, bias=False)
        nn.init.normal_(linear.weight, std=(2 / self.width) ** 0.5)
        drop = [nn.Dropout(dropout)] if dropout else []
        return [*drop, linear, nn.BatchNorm1d(self.width), nn.ReLU(inplace=True)]

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{last stage: (B, C, h, w)} -> (B, width)."""
        return self.layers(self.pool(features[self.stage]).flatten(1))
