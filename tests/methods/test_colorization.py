import pytest
import torch
import torch.nn.functional as F
from toydata import ToyImages

from bench.backbones.base import Shape
from bench.data.colour import rgb_to_lab
from bench.errors import BenchError
from bench.methods._dense import DenseTop
from bench.methods.base import make
from bench.training.task import Batch, Step

RED, BLUE = (220, 40, 40), (40, 60, 220)


def flat(*colours):
    """A data set of images of one colour each."""
    data = ToyImages(len(colours))
    data.images = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
    return data


def task_on(data, **options):
    task = make("colorization", "alexnet-smoke", options, seed=0)
    task.prepare(data, torch.Generator().manual_seed(0))
    return task.train()


def batch_of(images):
    return Batch(images, torch.arange(len(images)), torch.full((len(images),), -1))


def loss_of(task, images):
    return next(iter(task.losses(batch_of(images), Step(0, 0, 1), torch.Generator())))[1]


@pytest.fixture(scope="module")
def toy():
    return ToyImages()


@pytest.fixture(scope="module")
def prepared(toy):
    return task_on(toy)


def test_the_head_is_the_papers_on_its_map():
    with torch.device("meta"):
        top = DenseTop(Shape(256, 12, 12), 313)
        fc6 = top.layers[1]
        assert fc6.weight.shape == (4096, 256, 6, 6)
        assert (fc6.dilation, fc6.padding) == ((2, 2), (5, 5))
        assert top(torch.zeros(2, 256, 12, 12)).shape == (2, 313, 12, 12)


@pytest.mark.parametrize(("backbone", "stride"), [("alexnet-smoke", 4), ("alexnet-mini", 4)])
def test_the_target_is_about_twice_as_fine_as_the_map(backbone, stride):
    task = make("colorization", backbone, {}, seed=0)
    assert task.stride == stride


def test_it_trains_on_lightness_and_exports_that(prepared, toy):
    exported = prepared.export()
    assert exported.preprocess.space == "l"
    assert exported.conv1.conv.weight.shape[1] == 1
    images = toy.images[:4, :, :28, :28]
    lab = prepared.lab(images)
    seen = exported.eval().trunk(lab[:, :1])
    assert all(torch.equal(features, seen[stage]) for stage, features in exported(images).items())
    prepared.train()


def test_weights_have_mean_one_and_favour_the_rare():
    data = flat(*[RED] * 9, BLUE)
    task = task_on(data)
    ab = rgb_to_lab(torch.tensor([RED, BLUE]).view(2, 3, 1, 1) / 255)[:, 1:]
    red, blue = task.bins.nearest(ab).flatten().tolist()
    prior = torch.zeros(313)
    for share, index, weight in zip((0.9, 0.1), *(x.flatten(1) for x in task.bins.encode(ab)), strict=True):
        prior[index] += share * weight
    expected = 1 / (0.5 * prior + 0.5 / 313)
    expected /= (expected * prior).sum()
    torch.testing.assert_close(task.weights, expected)
    assert task.weights[blue] > 2 * task.weights[red]
    masses = 0.9 * expected[red], 0.1 * expected[blue]
    assert task.chance == pytest.approx(float(max(masses) / sum(masses)), rel=1e-5)


def test_guessing_one_colour_scores_chance():
    data = flat(*[RED] * 9, BLUE)
    task = task_on(data)
    ab = rgb_to_lab(torch.tensor(RED).view(1, 3, 1, 1) / 255)[:, 1:]
    output = task.top.layers[-1]
    torch.nn.init.zeros_(output.weight)
    with torch.no_grad():
        output.bias.zero_()[task.bins.nearest(ab).item()] = 1
    metrics = loss_of(task, data.images[:, :, :28, :28]).metrics
    assert float(metrics["rebalanced_accuracy"]) == pytest.approx(task.chance, abs=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx(0.9)


def test_the_loss_by_hand(prepared, toy):
    images = toy.images[:6, :, :28, :28]
    lab = prepared.lab(images)
    ab = lab[:, 1:, ::4, ::4]
    indices, weights = prepared.bins.encode(ab)
    code = torch.zeros(6, 313, 7, 7).scatter(1, indices, weights)
    logits = F.interpolate(prepared._logits(lab), (7, 7), mode="bilinear")
    expected = (F.cross_entropy(logits, code, reduction="none") * prepared.weights[indices[:, 0]]).mean()
    torch.testing.assert_close(loss_of(prepared, images).total, expected)


def test_grey_images_teach_nothing(prepared):
    grey = torch.full((4, 3, 28, 28), 90, dtype=torch.uint8)
    loss = loss_of(prepared, grey)
    assert loss.total.item() == 0
    loss.total.backward()
    assert all(not p.grad.any() for p in prepared.parameters() if p.grad is not None)
    assert all(m.isfinite() for m in loss.metrics.values())


def test_data_without_colour_are_refused():
    with pytest.raises(BenchError, match="no colour"):
        task_on(flat((10, 10, 10), (200, 200, 200)))


def test_prior_and_chance_outlive_a_restart(prepared):
    again = make("colorization", "alexnet-smoke", {}, seed=1)
    assert again.chance == 0
    again.load_state_dict(prepared.state_dict())
    assert again.chance == prepared.chance > 0
    assert torch.equal(again.weights, prepared.weights)


def test_the_picture_keeps_lightness_and_shows_the_truth(prepared, toy):
    images = toy.images[:3, :, :28, :28]
    with torch.no_grad():
        drawn = prepared.eval().picture(batch_of(images), torch.Generator())
    prepared.train()
    assert drawn.shape == (3, 3, 3, 28, 28)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, 2], images)
    assert (drawn[:, 0].float() - drawn[:, 0].float().mean(1, keepdim=True)).abs().max() <= 1
    lightness = rgb_to_lab(drawn[:, 0] / 255)[:, 0] - rgb_to_lab(images / 255)[:, 0]
    assert lightness.abs().max() < 1


def test_an_impossible_code_is_refused():
    with pytest.raises(BenchError, match="soft code"):
        make("colorization", "alexnet-smoke", {"neighbours": 0}, seed=0)
