import pytest
import torch
from torch import nn

from bench import registry
from bench.backbones import initialise
from bench.backbones.base import build
from bench.backbones.resnet import ResNet
from bench.checkpoints import card
from bench.errors import BenchError

SMALL = ["resnet-smoke", "resnet-v2-smoke"]


def images(side, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def count(module):
    return sum(p.numel() for p in module.parameters())


def scrambled(model):
    """BatchNorms as a trained net has them, so that a swapped one shows."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model.eval()


def test_every_variant_is_registered():
    assert {e.key for e in registry.entries("backbones") if e.class_name == "ResNet"} == set(ResNet.variants)
    assert {registry.family(key) for key in ResNet.variants} == {"resnet"}
    for key in ResNet.variants:
        assert tuple(registry.shape(key)["stages"]) == build(key).stages


@pytest.mark.parametrize(("key", "theirs"), [("resnet50", "resnet50"), ("resnet101", "resnet101")])
def test_it_computes_what_torchvision_computes(key, theirs):
    torchvision = pytest.importorskip("torchvision")
    reference = scrambled(getattr(torchvision.models, theirs)(weights=None))
    ours = build(key).eval()
    renamed = {}
    for name, value in reference.state_dict().items():
        stem, _, rest = name.partition(".")
        if stem.startswith("layer"):
            renamed[f"res{int(stem[5:]) + 1}.{rest}"] = value
        elif stem != "fc":
            renamed[f"conv1.{'conv' if stem == 'conv1' else 'norm'}.{rest}"] = value
    ours.load_state_dict(renamed, strict=True)
    x = images(96)
    with torch.no_grad():
        features = ours(x)
        y = reference.relu(reference.bn1(reference.conv1(ours.preprocess(x))))
        expected = {"conv1": y}
        y = reference.maxpool(y)
        for i in range(1, 5):
            y = expected[f"res{i + 1}"] = getattr(reference, f"layer{i}")(y)
    assert list(features) == list(expected)
    for stage, value in expected.items():
        torch.testing.assert_close(features[stage], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "parameters", "last"),
    [
        ("resnet50", 23_508_032, (2048, 7, 7)),
        ("resnet50-s16", 23_508_032, (2048, 14, 14)),
        ("resnet101", 42_500_160, (2048, 7, 7)),
        # torchvision's ResNet-101 up to layer3, less the BatchNorm of a projection and of a block's end, each stage
        ("resnet101-v2", 27_531_840, (1024, 28, 28)),
    ],
)
def test_published_sizes(key, parameters, last):
    backbone = build(key)
    assert count(backbone) == parameters
    shapes = backbone.shapes()
    assert tuple(shapes["conv1"]) == (64, 112, 112)
    assert tuple(shapes["res2"]) == (256, 56, 56)
    assert tuple(shapes[backbone.stages[-1]]) == last


def test_the_trunk_of_multi_task_has_stride_8():
    backbone = build("resnet101-v2")
    assert backbone.stages == ("conv1", "res2", "res3", "res4")
    for side in (224, 256):
        assert backbone.shapes(side)["res4"].height == side // 8
    blocks = [len([m for m in backbone.get_submodule(s).children() if hasattr(m, "conv3")]) for s in backbone.stages]
    assert blocks == [0, 3, 4, 23]


def test_v2_is_he_s_preactivation_net_written_out():
    backbone = scrambled(build("resnet-v2-smoke"))
    x = backbone.preprocess(images(28))

    def block(module, raw, activated):
        y = module.conv1(activated)
        y = module.conv2(module.bn2(y).relu())
        y = module.conv3(module.bn3(y).relu())
        return y + (module.downsample(activated) if module.downsample is not None else raw)

    with torch.no_grad():
        features = backbone.trunk(x)
        y = backbone.conv1.norm(backbone.conv1.conv(x)).relu()
        torch.testing.assert_close(features["conv1"], y)
        first, second = backbone.res3.get_submodule("0"), backbone.res3.get_submodule("1")
        total = block(first, None, features["res2"])
        assert (total < 0).any()  # a plain sum
        total = block(second, total, second.bn1(total).relu())
        torch.testing.assert_close(features["res3"], backbone.res3.norm(total).relu())


@pytest.mark.parametrize("key", SMALL)
def test_small_ones_suit_small_images_and_tiles(key):
    backbone = build(key)
    for side in (8, 16, 28, 32, 56, 64):
        assert all(shape.height >= 1 for shape in backbone.shapes(side).values())
    heights = [shape.height for shape in backbone.shapes().values()]
    assert heights == ([28, 14, 7, 4, 2] if key == "resnet-smoke" else [28, 14, 7, 7])


@pytest.mark.parametrize("key", SMALL)
def test_features_of_a_stage_do_not_depend_on_what_else_is_asked_for(key):
    backbone = build(key).eval()
    everything = backbone(images(28))
    assert list(everything) == list(backbone.stages)
    for stage in backbone.stages:
        assert torch.equal(backbone(images(28), (stage,))[stage], everything[stage])
        assert everything[stage].min() >= 0
    ran = []
    for stage in backbone.stages:
        backbone.get_submodule(stage).register_forward_hook(lambda *_, stage=stage: ran.append(stage))
    backbone(images(28), ("res2",))
    assert ran == ["conv1", "res2"]


@pytest.mark.parametrize("key", SMALL)
def test_frozen_in_eval_mode_and_moving_in_training(key):
    backbone = build(key).eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    first = backbone(images(28))
    assert all(torch.equal(first[stage], value) for stage, value in backbone(images(28)).items())
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    backbone.train()(images(28))
    moved = [name for name, value in backbone.state_dict().items() if not torch.equal(before[name], value)]
    assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("key", SMALL)
def test_saved_and_loaded_with_everything_matched(key, tmp_path):
    backbone = scrambled(build(key))
    card.save(tmp_path, backbone, {"method": "test"})
    loaded, facts = card.load(tmp_path)
    assert facts["stages"] == list(backbone.stages)
    for stage, features in backbone(images(28)).items():
        assert torch.equal(loaded(images(28))[stage], features)


def test_batch_norm_statistics_are_taken_in_every_layer():
    backbone = build("resnet-smoke")
    initialise.set_batch_norm_statistics_(backbone, [images(28, 16), images(28, 16)])
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 4 * 4
    assert all(not torch.equal(m.running_var, torch.ones_like(m.running_var)) for m in norms)


def test_weights_are_he_normal_over_the_fan_out_and_come_from_torchs_seed():
    torch.manual_seed(3)
    first = build("resnet50")
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), build("resnet50").parameters(), strict=True))
    block = first.res4.get_submodule("1")
    assert first.conv1.conv.weight.std().item() == pytest.approx((2 / (49 * 64)) ** 0.5, rel=0.02)
    assert block.conv2.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


def test_memory_formats_agree():
    backbone = build("resnet-smoke").eval()
    x = images(56)
    with torch.no_grad():
        expected = backbone(x)["res5"]
        backbone.to(memory_format=torch.channels_last)
        fast = backbone(x.contiguous(memory_format=torch.channels_last))["res5"]
    torch.testing.assert_close(fast, expected, atol=1e-5, rtol=1e-5)


def test_what_it_cannot_do_is_said_in_one_line():
    backbone = build("resnet-smoke")
    with pytest.raises(BenchError, match="resnet-smoke is not a chain of layers"):
        backbone.chain()
    with pytest.raises(BenchError, match="unknown stage 'conv5'"):
        backbone(images(28), ("conv5",))
    with pytest.raises(BenchError, match="4 residual stages need as many"):
        build("resnet-smoke", blocks=(1, 1, 1))
    assert build("resnet-smoke", preprocess="l").in_channels == 1
