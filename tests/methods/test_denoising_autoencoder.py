import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toydata import ToyImages

from bench.errors import BenchError
from bench.methods.base import make
from bench.training.task import Batch, Step


def task_on(data, **options):
    task = make("denoising-autoencoder", "alexnet-smoke", options, seed=0)
    task.prepare(data, torch.Generator().manual_seed(0))
    return task


def batch_of(images):
    return Batch(images, torch.arange(len(images)), torch.full((len(images),), -1))


def loss_of(task, images, seed=0):
    return next(iter(task.losses(batch_of(images), Step(0, 0, 1), torch.Generator().manual_seed(seed))))[1]


@pytest.fixture(scope="module")
def toy():
    return ToyImages()


@pytest.fixture(scope="module")
def clean(toy):
    return task_on(toy).backbone.preprocess(toy.images[:, :, :28, :28])


def corrupted(task, clean, seed=0):
    return task._corrupted(clean, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("amount", [0.5, 0.2])
def test_masking_drops_single_values_and_scales_the_rest(toy, clean, amount):
    found = corrupted(task_on(toy, amount=amount), clean)
    dropped = found == 0
    assert dropped.float().mean().item() == pytest.approx(amount, abs=0.01)
    torch.testing.assert_close(found[~dropped], clean[~dropped] / (1 - amount))
    in_all = dropped.all(1).float().mean().item()
    assert in_all == pytest.approx(amount**3, abs=0.01)  # channels fall independently


def test_gaussian_noise_is_in_units_of_each_channel(toy, clean):
    task = task_on(toy, corruption="gaussian", amount=0.3)
    noise = (corrupted(task, clean) - clean).std((0, 2, 3)) / clean.std((0, 2, 3))
    assert noise.tolist() == pytest.approx([0.3] * 3, rel=0.1)


def test_salt_and_pepper_hit_whole_pixels(toy, clean):
    task = task_on(toy, corruption="salt-and-pepper", amount=0.4)
    found = corrupted(task, clean)
    salt = (found == found.new_tensor([50, 0, 0]).view(1, 3, 1, 1)).all(1)
    pepper = (found == found.new_tensor([-50, 0, 0]).view(1, 3, 1, 1)).all(1)
    assert salt.float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert pepper.float().mean().item() == pytest.approx(0.2, abs=0.01)
    kept = ~(salt | pepper)
    assert torch.equal(found.movedim(1, -1)[kept], clean.movedim(1, -1)[kept])


@pytest.mark.parametrize("corruption", ["masking", "gaussian", "salt-and-pepper"])
def test_corruption_is_a_function_of_the_generator(toy, clean, corruption):
    task = task_on(toy, corruption=corruption)
    assert torch.equal(corrupted(task, clean, 3), corrupted(task, clean, 3))
    assert not torch.equal(corrupted(task, clean, 3), corrupted(task, clean, 4))
    assert loss_of(task, toy.images[:8, :, :28, :28]).total.isfinite()


def test_the_mean_colour_explains_nothing(toy):
    task = task_on(toy)
    nn.init.zeros_(task.top.layers[-1].weight)
    nn.init.zeros_(task.top.layers[-1].bias)
    loss = loss_of(task, toy.images[:, :, 2:30, 2:30])
    assert float(loss.metrics["explained"]) == pytest.approx(0, abs=1e-6)
    assert loss.total.item() == pytest.approx(1, rel=0.2)  # in standard units


def test_the_loss_compares_with_the_clean_image(toy):
    task = task_on(toy).eval()
    images = toy.images[:8, :, :28, :28]
    clean = task.backbone.preprocess(images)
    answer = task._answer(corrupted(task, clean, 5))
    target = (F.adaptive_avg_pool2d(clean, 3) - task.target.mean) / task.target.std
    torch.testing.assert_close(loss_of(task, images, 5).total, F.mse_loss(answer, target))


def test_it_exports_a_backbone_on_lab_and_keeps_its_statistics(toy):
    task = task_on(toy)
    assert task.export().preprocess.space == "lab"
    again = make("denoising-autoencoder", "alexnet-smoke", {}, seed=1)
    again.load_state_dict(task.state_dict())
    assert torch.equal(again.target.mean, task.target.mean)
    assert (task.pixels.std > task.target.std).all()  # averages vary less than pixels


def test_the_picture(toy):
    task = task_on(toy).eval()
    images = toy.images[:3, :, :28, :28]
    with torch.no_grad():
        drawn = task.picture(batch_of(images), torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 4, 3, 28, 28)
    assert (drawn[:, 3].int() - images.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "says"),
    [({"corruption": "mask"}, "masking"), ({"amount": 0.0}, "corrupt by"), ({"amount": 1.0}, "corrupt by")],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(BenchError, match=says):
        make("denoising-autoencoder", "alexnet-smoke", options, seed=0)
