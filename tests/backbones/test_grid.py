import pytest
from torch import nn

from bench import registry
from bench.backbones.base import build
from bench.backbones.grid import PIXELS, Grid, grid, walk
from bench.errors import BenchError


@pytest.mark.parametrize(
    ("key", "stage", "found"),
    [
        ("alexnet", "conv1", (4, 3)),  # 11 x 11, padded by 2
        ("alexnet", "conv5", (16, 15)),
        ("caffenet", "conv5", (16, 17)),
        ("alexnet-mini", "conv5", (8, 6)),
        ("nin-smoke", "block4", (4, 0)),
        ("resnet-smoke", "res4", (8, 0)),
    ],
)
def test_where_cells_are_by_hand(key, stage, found):
    assert grid(build(key), stage) == found


def test_layers_add_up():
    first, second = nn.Conv2d(1, 1, 5, stride=2), nn.MaxPool2d(3, stride=2, padding=1)
    assert walk([]) == PIXELS
    assert walk([first]) == (2, 2)
    assert walk([first, nn.ReLU(), second]) == (4, 2)
    assert walk([second], walk([first])) == walk([first, second])
    assert walk([first], Grid(1, -100)) == (2, -98)


@pytest.mark.parametrize("key", [key for key in registry.names("backbones") if key.startswith(("alexnet", "caffenet"))])
def test_the_stride_is_what_a_larger_image_gains(key):
    backbone = build(key)
    small, large = backbone.shapes(256), backbone.shapes(512)
    for stage in backbone.stages:
        assert grid(backbone, stage).stride * (large[stage].height - small[stage].height) == 256


def test_an_unknown_stage_is_refused():
    with pytest.raises(BenchError, match="conv6"):
        grid(build("alexnet-smoke"), "conv6")
