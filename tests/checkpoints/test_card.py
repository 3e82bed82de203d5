import hashlib
import json

import pytest
import safetensors.torch
import torch

from bench.backbones.base import build
from bench.checkpoints import card
from bench.errors import BenchError

FACTS = {"method": "rotation", "seed": 0, "data": {"train": {"n": 160}}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def trained(key="alexnet-smoke", **overrides):
    """A backbone none of whose tensors is at its default."""
    backbone = build(key, **overrides)
    for value in backbone.state_dict().values():
        if value.is_floating_point():
            value += torch.rand(value.shape)
    return backbone


def edit(folder, **changes):
    path = folder / card.CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, state):
    """Other weights under a card that is made to agree with them."""
    data = safetensors.torch.save(state)
    (folder / card.WEIGHTS).write_bytes(data)
    edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"norm": "none", "preprocess": "caffe"},
        {"widths": (4, 8, 8, 8, 4), "fc": (6, 5), "preprocess": "l"},
        {"preprocess": {"space": "rgb", "mean": [0.4], "std": [0.3]}},
    ],
)
def test_round_trip_to_the_bit(folder, images, overrides):
    backbone = trained(**overrides).to(memory_format=torch.channels_last)
    saved = card.save(folder, backbone, FACTS)
    again, facts = card.load(folder)
    assert facts == json.loads(json.dumps(saved))
    assert {key: facts[key] for key in FACTS} == FACTS
    assert list(again.state_dict()) == list(backbone.state_dict())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in backbone.state_dict().items())
    assert again.preprocess.to_dict() == backbone.preprocess.to_dict()
    assert not again.training
    with torch.no_grad():
        expected, found = backbone.eval()(images), again(images)
    assert all(torch.allclose(expected[stage], found[stage], rtol=1e-4, atol=1e-5) for stage in backbone.stages)


def test_what_a_card_says(folder):
    backbone = trained(norm="none")
    card.save(folder, backbone, FACTS)
    facts = json.loads((folder / "card.json").read_text())
    weights = (folder / "backbone.safetensors").read_bytes()
    assert facts == {
        "schema": 1,
        "backbone": "alexnet-smoke",
        "overrides": {"norm": "none"},
        "backbone_version": backbone.version,
        "stages": ["conv1", "conv2", "conv3", "conv4", "conv5"],
        "preprocess": backbone.preprocess.to_dict(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **FACTS,
    }
    assert sorted(path.name for path in folder.iterdir()) == ["backbone.safetensors", "card.json"]


def test_the_same_weights_are_the_same_bytes(tmp_path):
    backbone = trained()
    first = card.save(tmp_path / "a", backbone, {})
    second = card.save(tmp_path / "b", backbone.to(memory_format=torch.channels_last), {})
    assert first["weights_sha256"] == second["weights_sha256"]
    assert card.save(tmp_path / "b", trained(), {})["weights_sha256"] != first["weights_sha256"]


def test_the_cards_preprocessing_travels_with_the_weights(folder):
    backbone = trained()
    backbone.preprocess = type(backbone.preprocess)("rgb", mean=[0.1], std=[0.9])
    card.save(folder, backbone, {})
    assert card.load(folder)[0].preprocess.to_dict() == backbone.preprocess.to_dict()


def test_facts_cannot_take_the_cards_own_keys(folder):
    with pytest.raises(ValueError, match="preprocess"):
        card.save(folder, trained(), {"preprocess": {}})
    assert not folder.exists()


@pytest.mark.parametrize("name", [card.WEIGHTS, card.CARD])
def test_a_missing_file(folder, name):
    card.save(folder, trained(), FACTS)
    (folder / name).unlink()
    with pytest.raises(BenchError, match=f"{name}"):
        card.load(folder)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_damaged_weights(folder, damage):
    card.save(folder, trained(), FACTS)
    path = folder / card.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"truncated": data[:-100], "one bit": data, "empty": b""}[damage])
    with pytest.raises(BenchError, match=r"damaged or replaced.*backbone\.safetensors"):
        card.load(folder)


def test_weights_that_are_no_safetensors(folder):
    card.save(folder, trained(), FACTS)
    (folder / card.WEIGHTS).write_bytes(b"PK\x03\x04 something else")
    edit(folder, weights_sha256=hashlib.sha256(b"PK\x03\x04 something else").hexdigest())
    with pytest.raises(BenchError, match="not a safetensors file"):
        card.load(folder)


def test_a_tensor_too_few_or_too_many_or_of_another_shape(folder):
    backbone = trained()
    card.save(folder, backbone, FACTS)
    state = backbone.state_dict()
    rewrite(folder, {name: value for name, value in state.items() if name != "conv2.norm.running_mean"})
    with pytest.raises(BenchError, match=r"1 missing \(conv2\.norm\.running_mean\)"):
        card.load(folder)
    rewrite(folder, {name: value for name, value in state.items() if name != "conv2.norm.num_batches_tracked"})
    with pytest.raises(BenchError, match=r"1 missing \(conv2\.norm\.num_batches_tracked\)"):
        card.load(folder)
    rewrite(folder, {**state, "classifier.weight": torch.zeros(2, 2)})
    with pytest.raises(BenchError, match=r"1 unexpected \(classifier\.weight\).*backbone\.safetensors"):
        card.load(folder)
    edit(folder, overrides={"widths": [4, 8, 8, 8, 4]})
    with pytest.raises(BenchError, match="mis-shaped"):
        card.load(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 2}, "schema 2; this bench reads 1"),
        ({"backbone": "alexnet-smokee"}, "did you mean alexnet-smoke"),
        ({"backbone_version": 99}, "the card has version 99"),
        ({"stages": ["conv1"]}, r"the card has stages \['conv1'\]"),
        ({"overrides": {"norms": "none"}}, "did you mean norm"),
        ({"overrides": {"widths": 7}}, "argument of alexnet-smoke: widths cannot be 7"),
        ({"overrides": None}, "describes no backbone"),
        ({"preprocess": {"space": "rgbb"}}, "did you mean rgb"),
        ({"preprocess": {"space": "l"}}, "the card has input channels 1, alexnet-smoke has 3"),
        ({"preprocess": {"mean": ["grey"]}}, "describes no backbone"),
    ],
)
def test_a_card_that_describes_something_else(folder, changes, says):
    card.save(folder, trained(), FACTS)
    edit(folder, **changes)
    with pytest.raises(BenchError, match=says) as caught:
        card.load(folder)
    assert "card.json" in str(caught.value)


def test_a_card_that_is_none(folder):
    card.save(folder, trained(), FACTS)
    path = folder / card.CARD
    for text, says in (("{}", "lacks schema, backbone"), ("[]", "not a card"), ("{", "cannot read JSON")):
        path.write_text(text)
        with pytest.raises(BenchError, match=says):
            card.load(folder)


def test_names():
    name = card.Name.parse("alexnet-mini.random-rescaled_tiny-imagenet-50")
    assert name == ("alexnet-mini", "random-rescaled", "tiny-imagenet-50")
    assert str(name) == "alexnet-mini.random-rescaled_tiny-imagenet-50"
    for bad in ("alexnet", "alexnet.rotation", "alexnet_rotation.in1k", "AlexNet.rotation_in1k", "a.b_c_d", "a.b.c_d"):
        with pytest.raises(BenchError, match=r"architecture\.method_data"):
            card.Name.parse(bad)
