import copy

import pytest
import torch
from torch import nn
from toydata import ToyImages

from bench.backbones.base import build
from bench.errors import BenchError
from bench.protocols.transfer import Transfer, freeze_, hold_statistics_, images, prepared
from bench.runfolder import RunFolder
from bench.training import optim
from bench.training.device import fabric
from bench.training.loop import Execution, train
from bench.training.recipe import SGD, MultiStep, Recipe
from bench.training.task import Loss, Task

STANDARD = {
    "absorb": True,
    "fc": [64, 64],
    "fc_init": "gaussian",
    "rescale": True,
    "rescale_except": ["random"],
    "batches": 4,
}


def _spec(**changes):
    return Transfer.model_validate({**STANDARD, **changes})


def _dice(seed=0):
    return torch.Generator().manual_seed(seed)


def _pretrained(key="alexnet-smoke", **overrides):
    """Weights as after training: no BatchNorm is at its default."""
    torch.manual_seed(3)
    backbone = build(key, **overrides)
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias, std=0.3)
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 2)
    return backbone.eval()


def _prepared(backbone, method="rotation", data=None, seed=0, **changes):
    spec = _spec(**changes)
    batches = images(data or ToyImages(64), backbone, spec, _dice(1))
    return prepared(backbone, batches, spec, method=method, generator=_dice(seed))


def _layers(net):
    return {name: m for name, m in net.chain().items() if isinstance(m, nn.Conv2d | nn.Linear)}


def _views(side=28):
    return ToyImages(16).images[:, :, 2 : 2 + side, 2 : 2 + side]


def _spread(net):
    """How far the layers' gradient-to-weight ratios are apart: the largest over the smallest."""
    output = net.fc(net(_views())["conv5"])
    output.backward(torch.randn(output.shape, generator=_dice(5)))
    weights = [m.weight for m in _layers(net).values()]
    ratios = [float((w.grad.square().mean() / w.detach().square().mean()).sqrt()) for w in weights]
    return max(ratios) / min(ratios)


def test_an_absorbed_net_computes_the_same():
    backbone = _pretrained()
    made = _prepared(backbone, rescale=False).backbone
    assert not [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    for stage, features in backbone(_views()).items():
        assert torch.allclose(made(_views())[stage], features, atol=1e-4), stage


def test_a_net_that_keeps_its_batchnorm_is_the_same_to_the_bit():
    backbone = _pretrained()
    made = _prepared(backbone, absorb=False, rescale=False).backbone
    assert all(torch.equal(made(_views())[stage], x) for stage, x in backbone(_views()).items())
    assert {type(m) for m in made.fc.modules()} & {nn.BatchNorm1d, nn.BatchNorm2d} == set()


def test_a_net_of_lightness_that_takes_colour_computes_the_same_at_first():
    backbone = _pretrained(preprocess="l")
    made = prepared(backbone, [], _spec(colour=True, rescale=False), method="m", generator=_dice())
    assert made.record["steps"] == ["a and b taken in", "BatchNorm absorbed", "fc from gaussian"]
    assert (made.backbone.in_channels, made.backbone.preprocess.space) == (3, "lab")
    views = torch.rand(2, 3, 28, 28)
    assert torch.allclose(made.backbone(views)["conv5"], backbone(views)["conv5"], atol=1e-5)
    assert not made.backbone.conv1.conv.weight[:, 1:].any()
    with pytest.raises(BenchError, match="its weights take rgb, not lightness"):
        prepared(_pretrained(), [], _spec(colour=True), method="m", generator=_dice())


def test_fc6_and_fc7_start_gaussian_with_a_bias():
    fc = _prepared(_pretrained(), fc=[300, 400], rescale=False).backbone.fc
    assert [tuple(m.weight.shape) for m in (fc.fc6, fc.fc7)] == [(300, 16), (400, 300)]
    for layer in (fc.fc6, fc.fc7):
        assert layer.weight.mean().abs() < 3e-4
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert (layer.bias == 0.1).all()


def test_fc6_stands_on_pool5_of_the_papers():
    assert _prepared(_pretrained("caffenet"), fc=[8], rescale=False).backbone.fc.fc6.weight.shape == (8, 9216)
    assert _prepared(_pretrained("alexnet"), fc=[8], rescale=False).backbone.fc.fc6.weight.shape == (8, 9216)


def test_fc6_and_fc7_can_start_from_the_data():
    made = _prepared(_pretrained(), fc_init="kmeans", rescale=False).backbone
    x = made.preprocess(_views())
    for name, layer in made.chain().items():
        x = layer(x)
        if name in ("fc.fc6", "fc.fc7"):
            assert 0.5 < x.std(0).mean().item() < 2, "unit variance on the images it looked at"
    plain = _prepared(_pretrained(), rescale=False).backbone
    assert torch.equal(made.conv5.conv.weight, plain.conv5.conv.weight), "the trunk keeps its filters"


def test_fc6_and_fc7_of_the_weights():
    backbone = _pretrained(fc=[64, 64])
    made = _prepared(backbone, fc_init="weights", rescale=False).backbone
    assert torch.allclose(made.fc(made(_views())["conv5"]), backbone.fc(backbone(_views())["conv5"]), atol=1e-4)
    assert made.fc.fc6.bias is not None, "its BatchNorm is in it"
    fresh = _prepared(backbone, rescale=False).backbone
    assert (fresh.fc.fc6.bias == 0.1).all(), "fc_init says gaussian, whatever the weights bring"


def test_weights_without_fc6_are_refused_unless_the_definition_says_what_then():
    with pytest.raises(BenchError, match="bring no fc6 and fc7"):
        _prepared(_pretrained(), fc_init="weights")
    made = _prepared(_pretrained(), fc_init="weights", fc_missing="gaussian")
    assert made.record["steps"] == ["BatchNorm absorbed", "fc from gaussian", "rescaled"]


def test_weights_with_another_fc6_are_refused():
    with pytest.raises(BenchError, match=r"do not fit: fc.fc6.bias is 80 in the weights, 64 in the net"):
        _prepared(_pretrained(fc=[80, 64], norm="none"), fc_init="weights")


def test_rescaling_makes_all_layers_learn_at_one_pace():
    backbone = _pretrained()
    for stage, factor in (("conv2", 5.0), ("conv4", 0.2)):
        backbone.get_submodule(stage).norm.weight.data.mul_(factor)
    before = _spread(_prepared(backbone, rescale=False).backbone)
    after = _spread(_prepared(backbone).backbone)
    assert after < 2 < 10 < before


def test_random_is_not_rescaled():
    one, other = (_prepared(_pretrained(), method=method) for method in ("random", "rotation"))
    plain = _prepared(_pretrained(), rescale=False)
    assert one.record["steps"] == ["BatchNorm absorbed", "fc from gaussian"]
    assert other.record["steps"][-1] == "rescaled"
    assert all(torch.equal(a, b) for a, b in zip(one.backbone.parameters(), plain.backbone.parameters(), strict=True))
    assert not torch.equal(one.backbone.conv1.conv.weight, other.backbone.conv1.conv.weight)


def test_the_same_generator_gives_the_same_net_and_leaves_the_backbone_alone():
    backbone = _pretrained()
    before = copy.deepcopy(backbone.state_dict())
    torch.manual_seed(1)
    one = _prepared(backbone).backbone.state_dict()
    torch.manual_seed(2)
    again = _prepared(backbone).backbone.state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["fc.fc6.weight"], _prepared(backbone, seed=1).backbone.fc.fc6.weight)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_labels_are_not_looked_at_and_images_only_where_they_are_needed():
    data = ToyImages(64)
    data.labels = None
    data.__class__ = type("Unlabelled", (ToyImages,), {"__getitem__": lambda d, i: _Only(d.images[i])})
    assert len(images(data, _pretrained(), _spec(), _dice())) == 4
    assert images(None, _pretrained(), _spec(rescale=False), _dice()) == []


class _Only:
    def __init__(self, image):
        self.image = image


def test_what_is_not_a_chain_is_refused_unless_nothing_is_done_to_it():
    backbone = _pretrained()
    untouched = {"absorb": False, "fc": [], "rescale": False}
    assert _spec().obstacle("alexnet-smoke") == ""
    assert _spec().obstacle("resnet50") == "resnet50 takes no fc6 and fc7"
    assert _spec(**untouched).obstacle("resnet50") == ""
    made = _prepared(backbone, **untouched).backbone
    assert made is not backbone
    assert made.fc is None
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), backbone.parameters(), strict=True))
    backbone.config = {"backbone": "resnet50", "overrides": {}}
    with pytest.raises(BenchError, match="resnet50 takes no fc6 and fc7"):
        prepared(backbone, [], _spec(), method="rotation", generator=_dice())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"absorb": False}, "absorb it first"),
        ({"fc_missing": "kmeans"}, "fc_init = 'weights' only"),
        ({"fc": [0]}, "greater than 0"),
        ({"fc_init": "xavier"}, "Input should be"),
        ({"typo": 1}, "Extra inputs"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _spec(**changes)


def test_frozen_parts_learn_nothing():
    net = _prepared(_pretrained(), rescale=False, absorb=False).backbone
    for frozen, learning in (
        ([], {"conv1", "conv2", "conv3", "conv4", "conv5", "fc"}),
        (["conv1"], {"conv2", "conv3", "conv4", "conv5", "fc"}),
        (["trunk"], {"fc"}),
        (["trunk", "fc"], set()),
    ):
        freeze_(net, frozen)
        assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == learning
    with pytest.raises(BenchError, match="has no 'conv9' to freeze"):
        freeze_(net, ["conv9"])


def test_running_statistics_of_what_learns_nothing_do_not_move():
    net = _prepared(_pretrained(), rescale=False, absorb=False).backbone
    freeze_(net, ["conv1", "conv2"])
    before = copy.deepcopy(net.state_dict())
    net.train()
    hold_statistics_(net)
    net(_views())
    moved = {name.split(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"conv3", "conv4", "conv5"}
    before = copy.deepcopy(net.state_dict())
    net.train()
    hold_statistics_(net, all_of_them=True)
    net(_views())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class _Sum(Task):
    """Every weight and every bias has a gradient of 1."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(3, 2))
        nn.init.constant_(self.net[1].weight, 1.0)
        nn.init.constant_(self.net[1].bias, 1.0)

    def view(self, sample, generator):
        return sample.image[:, :1, :1]

    def optimiser_of(self, name, spec, parameters):
        return optim.build(spec, optim.with_biases(self.net, spec, rate=2.0, decay=0.0))

    def losses(self, batch, step, generator):
        yield "main", Loss(self.net[1].weight.sum() + self.net[1].bias.sum())


def test_biases_learn_at_their_own_rate_and_decay(tmp_path):
    run = {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    folder = RunFolder.create(tmp_path / "run", run)
    task, spec = _Sum(), SGD(lr=0.1, momentum=0.0, weight_decay=0.5, schedule=MultiStep((0.5,), 0.1))
    how = {"fabric": fabric(), "attempt": folder.take("test"), "how": Execution(workers=0)}
    train(task, ToyImages(8), Recipe(epochs=2, batch=8, optimiser=spec), seed=0, **how)
    weight = 1 - 0.1 * (1 + 0.5 * 1)
    weight -= 0.01 * (1 + 0.5 * weight)
    assert task.net[1].weight.flatten().tolist() == pytest.approx([weight] * 6)
    assert task.net[1].bias.tolist() == pytest.approx([1 - 0.2 - 0.02] * 2)
    assert not task.net[0].weight.requires_grad, "what does not learn is in no group"
