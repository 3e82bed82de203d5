import pytest
import torch
from torch import nn

from bench import registry
from bench.backbones.alexnet import AlexNet
from bench.backbones.base import build, twin
from bench.errors import BenchError

KEYS = sorted(AlexNet.variants)
SMALL = ["alexnet-smoke", "alexnet-demo", "alexnet-mini"]


def images(side, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def count(module, kind=nn.Module):
    return sum(p.numel() for m in module.modules() if isinstance(m, kind) for p in m.parameters(recurse=False))


def test_every_variant_is_registered():
    assert {e.key for e in registry.entries("backbones") if e.class_name == "AlexNet"} == set(KEYS)


@pytest.mark.parametrize(
    ("key", "sizes"),
    [
        ("alexnet", (55, 27, 13, 13, 13)),
        ("alexnet-sobel", (55, 27, 13, 13, 13)),
        ("caffenet", (55, 27, 13, 13, 13)),
        ("caffenet-lrn", (55, 27, 13, 13, 13)),
        ("bvlc-alexnet", (55, 27, 13, 13, 13)),
        ("caffenet-bn", (55, 27, 13, 13, 13)),
        ("caffenet-s2", (109, 54, 27, 27, 27)),
        ("alexnet-smoke", (14, 7, 3, 3, 3)),
        ("alexnet-demo", (28, 14, 7, 7, 7)),
        ("alexnet-mini", (28, 14, 7, 7, 7)),
    ],
)
def test_spatial_sizes(key, sizes):
    backbone = build(key)
    shapes = backbone.shapes()
    assert tuple(shape.height for shape in shapes.values()) == sizes
    assert tuple(shape.width for shape in shapes.values()) == sizes
    assert backbone.training


@pytest.mark.parametrize(
    ("key", "convolutions"),
    [
        # torchvision's AlexNet: 64*(3*121+1) + 192*(64*25+1) + 384*(192*9+1) + 256*(384*9+1) + 256*(256*9+1)
        ("alexnet", 23_296 + 307_392 + 663_936 + 884_992 + 590_080),
        # Krizhevsky et al.: 96*(3*121+1) + 256*(48*25+1) + 384*(256*9+1) + 384*(192*9+1) + 256*(192*9+1)
        ("caffenet", 34_944 + 307_456 + 885_120 + 663_936 + 442_624),
        # no groups, two input channels
        ("alexnet-sobel", 96 * (2 * 121 + 1) + 256 * (96 * 25 + 1) + 885_120 + 384 * 3457 + 256 * 3457),
        ("alexnet-mini", 32 * (3 * 25 + 1) + 64 * (32 * 25 + 1) + 128 * (64 * 9 + 1) + 2 * 128 * (128 * 9 + 1)),
    ],
)
def test_parameters_of_the_convolutions(key, convolutions):
    assert count(build(key), nn.Conv2d) == convolutions


def test_published_counts():
    assert count(build("alexnet"), nn.Conv2d) == 2_469_696
    classifier = 1000 * (4096 + 1)
    assert count(build("caffenet", fc=(4096, 4096))) + classifier == 60_965_224


def test_it_computes_what_torchvision_computes():
    torchvision = pytest.importorskip("torchvision")
    features = torchvision.models.alexnet(weights=None).features[:-1].eval()
    ours = build("alexnet", norm="none").eval()
    convolutions = [m for m in features if isinstance(m, nn.Conv2d)]
    for stage, conv in zip(ours.stages, convolutions, strict=True):
        ours.get_submodule(stage).conv.load_state_dict(conv.state_dict())
    x = images(224)
    with torch.no_grad():
        theirs = features(ours.preprocess(x))
        assert torch.allclose(ours(x)["conv5"], theirs, rtol=1e-4, atol=1e-6)


def test_local_response_norm_is_caffes():
    backbone = build("caffenet-lrn", input_side=67).eval()
    assert [name.split(".")[1] for name in backbone.chain()][2:5] == ["pool", "lrn", "conv"]
    assert [name.split(".")[1] for name in build("bvlc-alexnet").chain()][2:5] == ["lrn", "pool", "conv"]
    x = torch.rand(1, 8, 1, 1) * 100
    squares = x.square().flatten()
    around = torch.stack([squares[max(0, c - 2) : c + 3].sum() for c in range(8)])
    expected = x.flatten() / (1 + 1e-4 / 5 * around) ** 0.75
    assert torch.allclose(backbone.conv2.lrn(x).flatten(), expected)


def test_it_stops_after_the_last_stage_asked_for():
    backbone = build("alexnet-smoke")
    ran = []
    for stage in backbone.stages:
        backbone.get_submodule(stage).register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    features = backbone(images(28), ("conv3", "conv1"))
    assert list(features) == ["conv1", "conv3"]
    assert ran == ["conv1", "conv2", "conv3"]
    assert backbone(images(28), ()) == {}
    assert list(backbone(images(28))) == list(backbone.stages)


def test_features_of_a_stage_do_not_depend_on_what_else_is_asked_for():
    backbone = build("alexnet-smoke").eval()
    everything = backbone(images(28))
    for stage in backbone.stages:
        assert torch.equal(backbone(images(28), (stage,))[stage], everything[stage])
        assert everything[stage].min() >= 0  # after its ReLU


def test_unknown_stage():
    backbone = build("alexnet-smoke")
    with pytest.raises(BenchError, match="unknown stage 'conv6': did you mean conv"):
        backbone(images(28), ("conv1", "conv6"))
    with pytest.raises(BenchError, match="unknown stage"):
        backbone.out_channels("fc6")


@pytest.mark.parametrize("key", KEYS)
def test_the_twin_without_norm(key):
    def norms(backbone):
        return [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]

    with_norm = AlexNet.variants[key].get("norm", "batch") == "batch"
    assert len(norms(build(key))) == (5 if with_norm else 0)
    bare = build(key, norm="none")
    assert not norms(bare)
    assert all(bare.get_submodule(stage).conv.bias is not None for stage in bare.stages)
    assert bare.config == {"backbone": key, "overrides": {"norm": "none"}}


@pytest.mark.parametrize("key", SMALL)
def test_small_ones_suit_probes_and_tiles(key):
    backbone = build(key).eval()
    for shape in backbone.shapes().values():
        side = min(int((1200 / shape.channels) ** 0.5), shape.height)
        assert 100 < shape.channels * side**2 <= 1200
    tile = backbone.shapes(16)
    assert tile["conv5"][1:] == (2, 2)
    assert backbone.out_channels("conv5") == tile["conv5"].channels


def test_weights_come_from_torchs_seed_and_are_he_normal():
    torch.manual_seed(3)
    first = build("alexnet")
    torch.manual_seed(3)
    second, third = build("alexnet"), build("alexnet")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(second.conv1.conv.weight, third.conv1.conv.weight)
    for stage, fan_out in (("conv1", 121 * 64), ("conv2", 25 * 192), ("conv5", 9 * 256)):
        conv = first.get_submodule(stage).conv
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
        assert not conv.bias.any()


def test_state_dict_is_weights_only():
    names = build("alexnet-smoke").state_dict()
    assert {name.split(".")[0] for name in names} == set(AlexNet.stages)
    assert list(build("alexnet-smoke", norm="none").state_dict())[:2] == ["conv1.conv.weight", "conv1.conv.bias"]


def test_bytes_and_floats_and_memory_formats_agree():
    backbone = build("alexnet-mini").eval()
    x = images(56)
    with torch.no_grad():
        expected = backbone(x)["conv5"]
        assert torch.equal(backbone(x.float() / 255)["conv5"], expected)
        backbone.to(memory_format=torch.channels_last)
        fast = backbone(x.contiguous(memory_format=torch.channels_last))["conv5"]
    assert fast.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(fast, expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "batch-conv", "none"])
def test_fully_connected_layers(norm):
    backbone = build("alexnet-smoke", fc=(12, 10), norm=norm).eval()
    kinds = {type(m) for m in backbone.fc}
    assert (nn.BatchNorm1d in kinds) == (norm == "batch")
    assert (nn.Dropout in kinds) == (norm != "batch")
    assert (backbone.fc.fc6.bias is None) == (norm == "batch")
    assert backbone.fc.fc6.in_features == 16  # 3 x 3 pools to 1 x 1
    x = images(28)
    with torch.no_grad():
        out = backbone.fc(backbone(x)["conv5"])
        y = backbone.preprocess(x)
        for layer in backbone.chain().values():
            y = layer(y)
    assert out.shape == (2, 10)
    assert torch.equal(out, y)
    assert "fc6" not in backbone(x)
    assert build("alexnet-smoke").fc is None


def test_preprocessing_decides_the_input_channels():
    for name, channels in (("imagenet", 3), ("l", 1), ("ab", 2), ("sobel", 2)):
        backbone = build("alexnet-smoke", preprocess=name)
        assert backbone.in_channels == backbone.conv1.conv.in_channels == channels
        assert backbone(images(28))["conv5"].shape == (2, 16, 3, 3)
    custom = build("alexnet-smoke", preprocess={"space": "rgb", "mean": [0.5], "std": [0.5]})
    assert custom.preprocess(images(28)).abs().max() <= 1


def test_twin_keeps_overrides_preprocessing_and_mode():
    backbone = build("alexnet-smoke", widths=(4, 4, 4, 4, 4), preprocess="l").eval()
    backbone.preprocess.mean += 1
    other = twin(backbone, norm="none")
    assert other.config["overrides"] == {"widths": (4, 4, 4, 4, 4), "preprocess": "l", "norm": "none"}
    assert torch.equal(other.preprocess.mean, backbone.preprocess.mean)
    assert other.preprocess is not backbone.preprocess
    assert not other.training
    assert twin(backbone, preprocess="imagenet").in_channels == 3


@pytest.mark.parametrize(
    ("key", "overrides", "says"),
    [
        ("alexnet-minni", {}, "did you mean alexnet-mini"),
        ("alexnet-smoke", {"norms": "none"}, "did you mean norm"),
        ("alexnet-smoke", {"norm": "bach"}, "did you mean batch"),
        ("alexnet-smoke", {"lrn": "afterpool"}, "did you mean after-pool"),
        ("alexnet-smoke", {"preprocess": "cafe"}, "did you mean caffe"),
    ],
)
def test_bad_input(key, overrides, says):
    with pytest.raises(BenchError, match=says):
        build(key, **overrides)
