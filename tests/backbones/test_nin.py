import pytest
import torch
from torch import nn

from bench import registry
from bench.backbones import initialise
from bench.backbones.base import build
from bench.backbones.nin import NIN
from bench.checkpoints import card
from bench.errors import BenchError

BLOCK1 = 3 * 192 * 25 + 192 * 160 + 160 * 96
BLOCK2 = 96 * 192 * 25 + 2 * 192 * 192
BLOCK3 = 192 * 192 * 9 + 2 * 192 * 192


def images(side=32, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def convolutions(backbone):
    return [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]


def test_every_variant_is_registered():
    assert {e.key for e in registry.entries("backbones") if e.class_name == "NIN"} == set(NIN.variants)
    for key in NIN.variants:
        assert tuple(registry.shape(key)["stages"]) == build(key).stages


@pytest.mark.parametrize("blocks", [3, 4, 5])
def test_the_rotation_papers_networks(blocks):
    backbone = build(f"nin-{blocks}")
    assert sum(m.weight.numel() for m in convolutions(backbone)) == BLOCK1 + BLOCK2 + (blocks - 2) * BLOCK3
    assert all(m.bias is None for m in convolutions(backbone))
    assert len([m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]) == 3 * blocks
    shapes = backbone.shapes()
    assert backbone.stages == tuple(f"block{i + 1}" for i in range(blocks))
    assert [tuple(s) for s in shapes.values()] == [(96, 16, 16), *[(192, 8, 8)] * (blocks - 1)]


def test_it_computes_what_is_written_out():
    backbone = build("nin-smoke").eval()
    generator = torch.Generator().manual_seed(1)
    for norm in (m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.copy_(torch.rand(norm.running_mean.shape, generator=generator))
    mean, std = torch.tensor([125.3, 123.0, 113.9]), torch.tensor([63.0, 62.1, 66.7])
    y = (images().float() - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    pools = {"block1": nn.MaxPool2d(3, 2, 1), "block2": nn.AvgPool2d(3, 2, 1)}
    with torch.no_grad():
        features = backbone(images())
        for stage in backbone.stages:
            block = backbone.get_submodule(stage)
            for k in (1, 2, 3):
                y = block.get_submodule(f"norm{k}")(block.get_submodule(f"conv{k}")(y)).relu()
            y = pools.get(stage, nn.Identity())(y)
            torch.testing.assert_close(features[stage], y, atol=1e-5, rtol=1e-5)
            assert features[stage].min() >= 0


def test_kernels():
    sizes = [m.kernel_size[0] for m in convolutions(build("nin-5"))]
    assert sizes == [5, 1, 1, 5, 1, 1, *[3, 1, 1] * 3]


def test_absorbed_it_computes_the_same():
    backbone = build("nin-smoke")
    initialise.set_batch_norm_statistics_(backbone, [images(28, 32)])
    bare = initialise.absorb_batch_norm(backbone.eval()).eval()
    assert not [m for m in bare.modules() if isinstance(m, nn.BatchNorm2d)]
    for stage, features in backbone(images(28)).items():
        torch.testing.assert_close(bare(images(28))[stage], features, atol=1e-4, rtol=1e-4)


def test_its_chain_is_the_trunk():
    backbone = build("nin-smoke").eval()
    y = backbone.preprocess(images(28))
    for layer in backbone.chain().values():
        y = layer(y)
    assert torch.equal(y, backbone(images(28))["block4"])


def test_frozen_in_eval_mode():
    backbone = build("nin-smoke").eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(images(28))
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_saved_and_loaded_with_everything_matched(tmp_path):
    backbone = build("nin-smoke").eval()
    card.save(tmp_path, backbone, {"method": "test"})
    loaded, _ = card.load(tmp_path)
    for stage, features in backbone(images(28)).items():
        assert torch.equal(loaded(images(28))[stage], features)


def test_bad_arguments():
    with pytest.raises(BenchError, match="unknown norm 'group'"):
        build("nin-smoke", norm="group")
    with pytest.raises(BenchError, match="unknown stage 'conv1'"):
        build("nin-smoke")(images(28), ("conv1",))
