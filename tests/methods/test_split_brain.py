import pytest
import torch
from torch import nn
from toydata import ToyImages

from bench.backbones import preprocess
from bench.backbones.base import build
from bench.data.colour import rgb_to_lab
from bench.errors import BenchError
from bench.methods.base import make
from bench.methods.split_brain import SplitBrain
from bench.training.task import Batch, Step


def trained(backbone=None, data=None, steps=3, **options):
    """A task after a few updates, so that BatchNorm's statistics have moved."""
    torch.manual_seed(0)
    data = data or ToyImages()
    task = SplitBrain(backbone or build("alexnet-smoke"), **options)
    task.prepare(data, torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(task.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = loss_of(task, data.images[:16, :, :28, :28])
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    return task.eval(), data


def loss_of(task, images):
    batch = Batch(images, torch.arange(len(images)), torch.full((len(images),), -1))
    return next(iter(task.losses(batch, Step(0, 0, 1), torch.Generator())))[1]


@pytest.fixture(scope="module")
def lab():
    return trained()


GROUPED = {"groups": [1, 2, 1, 2, 2]}


@pytest.mark.parametrize("changes", [{}, GROUPED, {"norm": "none"}, {"lrn": "after-pool"}])
def test_the_export_has_the_features_of_both_halves_side_by_side(changes):
    task, data = trained(build("alexnet-smoke", **changes))
    whole = task.export().double().eval()
    images = data.images[:8, :, :28, :28].double() / 255
    x = whole.preprocess(images).double()
    halves = [half.double().trunk(x[:, group]) for half, group in zip(task.halves, task.groups, strict=True)]
    for stage, features in whole.trunk(x).items():
        torch.testing.assert_close(features, torch.cat([half[stage] for half in halves], 1), atol=1e-6, rtol=1e-6)
        assert features.std() > 1e-3


def test_the_export_is_one_alexnet_of_the_same_size(lab):
    whole = lab[0].export()
    plain = build("alexnet-smoke")
    assert whole.preprocess.space == "lab"
    assert {k: v.shape for k, v in whole.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert any(not torch.equal(m.running_mean, torch.zeros(len(m.weight))) for m in norms(whole))


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def test_weights_between_the_halves_are_zero(lab):
    whole = lab[0].export()
    for i, name in enumerate(whole.stages):
        weight = whole.get_submodule(name).conv.weight
        rows = len(weight) // 2
        columns = 1 if i == 0 else weight.shape[1] // 2
        assert not weight[:rows, columns:].any()
        assert not weight[rows:, :columns].any()
        assert weight[:rows, :columns].all()
        assert weight[rows:, columns:].all()


@pytest.mark.parametrize("changed", [[0], [1, 2]])
def test_no_half_sees_the_others_channels(lab, changed):
    task, data = lab
    whole = task.export().eval()
    x = whole.preprocess(data.images[:8, :, :28, :28])
    other = x.clone()
    other[:, changed] = other[:, changed].flip(0) + 3
    kept = 0 if changed != [0] else 1
    answers = [task._answers(images)[kept] for images in (x, other)]
    assert torch.equal(*answers)
    before, after = whole.trunk(x), whole.trunk(other)
    for stage in whole.stages:
        pairs = list(zip(before[stage].chunk(2, 1), after[stage].chunk(2, 1), strict=True))
        assert torch.equal(*pairs[kept])
        assert not torch.equal(*pairs[1 - kept])


def test_the_halves_share_no_gradient(lab):
    task, data = lab
    x = task.preprocess(data.images[:4, :, :28, :28])
    names, parameters = zip(*task.named_parameters(), strict=True)
    gradients = torch.autograd.grad(task._answers(x)[0].sum(), parameters, allow_unused=True)
    reached = [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]
    assert reached == [name for name in names if name.startswith(("halves.0.", "tops.0."))]


def test_bins_by_hand(lab):
    rgb = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]]).view(3, 3, 1, 1) / 255
    maps = rgb_to_lab(rgb) - torch.tensor([50.0, 0, 0]).view(1, 3, 1, 1)
    colour, lightness = lab[0]._labels(maps)
    assert lightness.flatten().tolist() == [0, 49, 26]  # red has L 53.24
    assert lab[0].bins.centres[colour.flatten()].tolist() == [[0, 0], [0, 0], [80, 70]]


def test_answering_the_bins_shares_scores_nothing_and_knowing_scores_more():
    """On images of one colour each, where no average moves a bin."""
    data = ToyImages(10)
    data.images = torch.tensor([[200, 30, 30]] * 7 + [[30, 30, 200]] * 3, dtype=torch.uint8)[:, :, None, None]
    data.images = data.images.expand(-1, -1, 32, 32).contiguous()
    task, _ = trained(data=data, steps=0)
    for prior in task._log_priors():
        assert prior.exp().sum().item() == pytest.approx(1)
    red = task._labels(task.preprocess(data.images[:1, :, :3, :3]))[0][0, 0, 0]
    assert task.log_prior_0.exp()[red].item() == pytest.approx((7 * 9 + 1) / (10 * 9 + 313))
    for top, prior in zip(task.tops, task._log_priors(), strict=True):
        nn.init.zeros_(top.layers[-1].weight)
        with torch.no_grad():
            top.layers[-1].bias.copy_(prior)
    images = data.images[:, :, :28, :28]
    assert loss_of(task, images).metrics["explained"].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        task.tops[0].layers[-1].bias[red] += 0.5
    metrics = loss_of(task, images).metrics
    assert metrics["explained_first"] > 0
    assert metrics["explained"].item() == pytest.approx(metrics["explained_first"].item() / 2, abs=1e-6)


def test_regression_scores_nothing_for_the_mean_colour():
    task, data = trained(loss="regression", steps=0)
    for top in task.tops:
        nn.init.zeros_(top.layers[-1].weight)
        nn.init.zeros_(top.layers[-1].bias)
    loss = loss_of(task, data.images[:, :, 2:30, 2:30])
    assert float(loss.metrics["explained"]) == pytest.approx(0, abs=1e-6)
    assert loss.total.item() == pytest.approx(2, rel=0.3)  # one a half, in standard units


def test_colour_and_depth(monkeypatch):
    monkeypatch.setitem(preprocess.SPACES, "none", 4)
    data = ToyImages()
    data.images = torch.cat([data.images, data.images[:, :1].flip(1)], 1)
    groups = [[0, 1, 2], [3]]
    task, _ = trained(build("alexnet-smoke", preprocess="none"), data, loss="regression", groups=groups)
    assert [half.conv1.conv.weight.shape[1] for half in task.halves] == [3, 1]
    assert [top.layers[-1].out_channels for top in task.tops] == [1, 3]
    whole = task.export().eval()
    images = data.images[:4, :, :28, :28]
    found = whole(images)
    x = whole.preprocess(images)
    for stage in whole.stages:
        expected = torch.cat([h.trunk(x[:, g])[stage] for h, g in zip(task.halves, groups, strict=True)], 1)
        torch.testing.assert_close(found[stage], expected, atol=1e-5, rtol=1e-5)
    assert task.picture(Batch(images, torch.arange(4), torch.arange(4)), torch.Generator()) is None


def test_groups_may_interleave():
    task, data = trained(build("alexnet-smoke"), loss="regression", groups=[[0, 2], [1]])
    whole = task.export().eval()
    assert whole.preprocess.space == "rgb"
    x = whole.preprocess(data.images[:4, :, :28, :28])
    expected = torch.cat([h.trunk(x[:, g])["conv5"] for h, g in zip(task.halves, task.groups, strict=True)], 1)
    torch.testing.assert_close(whole.trunk(x)["conv5"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_statistics_outlive_a_restart(loss):
    task, _ = trained(loss=loss, steps=0)
    again = make("split-brain", "alexnet-smoke", {"loss": loss}, seed=1)
    again.load_state_dict(task.state_dict())
    assert torch.equal(again.log_prior_1, task.log_prior_1)
    assert torch.equal(again.target.std, task.target.std)


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_the_picture(loss):
    task, data = trained(loss=loss)
    images = data.images[:3, :, :28, :28]
    with torch.no_grad():
        drawn = task.picture(Batch(images, torch.arange(3), torch.arange(3)), torch.Generator())
    assert drawn.shape == (3, 3, 3, 28, 28)
    assert torch.equal(drawn[:, 0], images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "regresion"}, "regression"),
        ({"groups": [[0], [1, 2]]}, "L and ab only"),
        ({"loss": "regression", "groups": [[0], [0, 1]]}, "two disjoint groups"),
        ({"loss": "regression", "groups": [[0], [3]]}, "two disjoint groups"),
        ({"loss": "regression", "groups": [[0, 1, 2]]}, "two disjoint groups"),
        ({"loss": "regression", "groups": [[], [1]]}, "two disjoint groups"),
    ],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(BenchError, match=says):
        make("split-brain", "alexnet-smoke", options, seed=0)


def test_four_groups_do_not_fall_in_two():
    with pytest.raises(BenchError, match="4 groups"):
        SplitBrain(build("alexnet-smoke", groups=[1, 4, 1, 1, 1]))
