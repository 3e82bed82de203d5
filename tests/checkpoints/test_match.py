import pytest
import torch

from bench.backbones.base import build
from bench.checkpoints.match import load_matched, match
from bench.errors import BenchError


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build("alexnet-smoke")


@pytest.fixture
def weights():
    torch.manual_seed(1)
    return build("alexnet-smoke").state_dict()


def test_everything_matches(backbone, weights):
    found = load_matched(backbone, weights)
    assert found.share == 1.0
    assert found.exact
    assert found.report() == "100 % of the values match (35 of 35 tensors)"
    assert all(torch.equal(weights[name], value) for name, value in backbone.state_dict().items())


def test_share_by_hand(backbone, weights):
    for name in ("weight", "bias"):
        del weights[f"conv5.conv.{name}"]
    # conv1 8*(3*25+1), conv2 16*(8*25+1), conv3..5 16*(16*9+1) each; 4 values a channel and norm
    total = 608 + 3216 + 3 * 2320 + 4 * (8 + 4 * 16)
    found = match(weights, backbone)
    assert found.share == pytest.approx((total - 2320) / total)
    assert found.missing == ["conv5.conv.weight", "conv5.conv.bias"]
    assert found.unexpected == []
    assert found.misshaped == []


def test_missing_unexpected_and_misshaped_are_told_apart(backbone, weights):
    weights["conv1.conv.weight"] = torch.zeros(8, 3, 11, 11)
    weights["conv2.norm.running_mean"] = torch.zeros(())
    weights["classifier.weight"] = weights.pop("conv3.conv.weight")
    weights["epoch"] = 90
    found = match(weights, backbone)
    assert found.missing == ["conv3.conv.weight"]
    assert found.unexpected == ["classifier.weight", "epoch"]
    assert found.misshaped == [
        ("conv1.conv.weight", (8, 3, 11, 11), (8, 3, 5, 5)),
        ("conv2.norm.running_mean", (), (16,)),
    ]
    assert not found.exact
    report = found.report()
    assert "32 of 35 tensors" in report
    assert "1 missing (conv3.conv.weight)" in report
    assert "2 unexpected (classifier.weight, epoch)" in report
    assert "conv1.conv.weight 8x3x11x11 for 8x3x5x5, conv2.norm.running_mean scalar for 16" in report


def test_too_little_loads_nothing(backbone, weights):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    foreign = {f"module.{name}": value for name, value in weights.items()}
    with pytest.raises(BenchError) as caught:
        load_matched(backbone, foreign)
    message = str(caught.value)
    assert "alexnet-smoke" in message
    assert "0 % of the values match (0 of 35 tensors)" in message
    assert "35 missing (conv1.conv.weight, conv1.conv.bias, conv1.norm.weight, 32 more)" in message
    assert "module.conv1.conv.weight" in message
    assert "100 % must match" in message
    assert "\n" not in message
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_a_lower_minimum_loads_what_matches_and_says_so(backbone, weights):
    kept = backbone.conv5.conv.weight.clone()
    del weights["conv5.conv.weight"]
    with pytest.raises(BenchError, match=r"79\.1 % of the values"):
        load_matched(backbone, weights, minimum=0.8)
    found = load_matched(backbone, weights, minimum=0.79)
    assert found.missing == ["conv5.conv.weight"]
    assert torch.equal(backbone.conv5.conv.weight, kept)
    assert torch.equal(backbone.conv4.conv.weight, weights["conv4.conv.weight"])


def test_nothing_but_everything_is_a_hundred_percent(weights):
    backbone = build("alexnet-smoke")
    del weights["conv1.norm.running_var"]
    with pytest.raises(BenchError, match=r"99.9 % of the values.*conv1\.norm\.running_var"):
        load_matched(backbone, weights)


def test_counters_of_batches_weigh_nothing_but_are_named(backbone, weights):
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    found = load_matched(backbone, old)  # checkpoints older than torch 0.4.1 have none
    assert found.share == 1.0
    assert len(found.missing) == 5
    assert not found.exact


def test_rename(backbone, weights):
    foreign = {f"module.{name}": value for name, value in weights.items()} | {"module.top.weight": torch.zeros(3)}
    found = load_matched(backbone, foreign, rename=lambda name: name.removeprefix("module."))
    assert found.unexpected == ["module.top.weight"]
    table = {f"module.{name}": name for name in weights}
    found = match(foreign, backbone, rename=table.get)
    assert found.share == 1.0
    assert found.unexpected == ["module.top.weight"]
    with pytest.raises(
        BenchError, match=r"'a.weight' and 'b.weight' of the checkpoint both become 'conv1.conv.weight'"
    ):
        match(
            dict.fromkeys(("a.weight", "b.weight"), weights["conv1.conv.weight"]),
            backbone,
            rename=lambda name: "conv1.conv.weight",
        )


def test_half_precision_is_widened(backbone, weights):
    load_matched(backbone, {n: v.half() if v.is_floating_point() else v for n, v in weights.items()})
    assert backbone.conv1.conv.weight.dtype == torch.float32
    assert torch.equal(backbone.conv1.conv.weight, weights["conv1.conv.weight"].half().float())


def test_parameters_still_train_afterwards(backbone, weights):
    load_matched(backbone, weights)
    assert all(p.requires_grad and p.is_leaf for p in backbone.parameters())
