"""Every task sees the same grey trunk, trains it in its turn with its own head, and reads a mixture of unit length."""

import math

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench import registry
from bench.backbones.base import build
from bench.data.batch import Batch
from bench.data.loader import Loader
from bench.errors import BenchError
from bench.methods.base import make
from bench.methods.multi_task import TASKS, Mixture
from bench.methods.pretext import measure
from bench.training.device import fabric
from bench.training.task import Step

STEP = Step(0, 0, 10)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _prepared(backbone="alexnet-smoke", **options):
    data = ToyImages()
    task = make("multi-task", backbone, options, seed=0)
    task.setup(data)
    task.prepare(data, _generator())
    return task.train(), data


def _batch(task, data, size=16):
    with Loader(data, task.view, seed=0, batch=size, workers=0) as loader:
        return next(iter(loader.epoch(0, torch.arange(len(data)))))


def _trunk(backbone="alexnet-smoke"):
    torch.manual_seed(0)
    return build(backbone).eval()


def test_its_tasks_are_methods():
    assert set(TASKS) <= set(registry.names("methods"))


# inputs


@pytest.mark.parametrize("lasso", [0.0, 0.1])
@pytest.mark.parametrize("name", TASKS)
def test_the_trunk_sees_grey_images_of_three_equal_channels(name, lasso):
    task, data = _prepared(tasks=[name], lasso=lasso)
    seen = []
    task.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    list(task.losses(_batch(task, data), STEP, _generator()))
    assert seen
    for images in seen:
        assert images.shape[1] == 3
        assert torch.equal(images[:, 0], images[:, 1])
        assert torch.equal(images[:, 0], images[:, 2])
        assert 0.2 < images.mean() < 0.8
        assert images.std() > 0.02


def test_colours_of_one_lightness_are_one_image():
    mixture, trunk = Mixture(_trunk(), lasso=0.1).eval(), _trunk()
    black, white = torch.zeros(1, 3, 28, 28), torch.ones(1, 3, 28, 28)
    for images, value in ((black, 0.0), (white, 1.0)):
        expected = trunk(images)["conv5"]
        plain = Mixture(trunk, lasso=0.0)(images)["mixed"]
        torch.testing.assert_close(plain, expected, msg=f"lightness {100 * value}", rtol=1e-3, atol=1e-4)
    red, grey = torch.zeros(1, 3, 28, 28), torch.full((1, 3, 28, 28), 0.4982)  # L of pure red is 53.24
    red[:, 0] = 1.0
    torch.testing.assert_close(mixture(red)["mixed"], mixture(grey)["mixed"], rtol=1e-2, atol=1e-2)


def test_the_export_takes_colour_images():
    task, _ = _prepared()
    assert task.export() is task.backbone
    assert task.export().preprocess.space == "rgb"


# the mixture


def test_without_lasso_a_task_reads_the_last_stage():
    trunk, images = _trunk("resnet-v2-smoke"), torch.rand(4, 3, 28, 28)
    mixture = Mixture(trunk, lasso=0.0)
    grey = mixture.preprocess(images).add(50).div(100).expand(-1, 3, -1, -1)
    assert torch.equal(mixture(images)["mixed"], trunk(grey)["res4"])
    assert list(mixture.parameters()) == []
    assert mixture.penalty() == 0


def test_the_mixture_by_hand():
    trunk, images = _trunk(), torch.rand(8, 3, 28, 28)
    mixture = Mixture(trunk, lasso=0.5)
    assert mixture.coefficients().tolist() == pytest.approx([5**-0.5] * 5)
    assert mixture.penalty().item() == pytest.approx(0.5 * 5**0.5)
    with torch.no_grad():
        mixture.alpha.copy_(torch.tensor([0.0, 3.0, 0.0, -4.0, 0.0]))
    assert mixture.coefficients().tolist() == pytest.approx([0, 0.6, 0, -0.8, 0])
    assert mixture.penalty().item() == pytest.approx(0.5 * 1.4)
    features = trunk(mixture.preprocess(images).add(50).div(100).expand(-1, 3, -1, -1))
    size = features["conv5"].shape[-2:]
    taken = {s: mixture.taken[s](torch.nn.functional.adaptive_avg_pool2d(features[s], size)) for s in features}
    expected = 0.6 * taken["conv2"] - 0.8 * taken["conv4"]
    torch.testing.assert_close(mixture(images)["mixed"], expected)
    assert expected.mean((0, 2, 3)).abs().max() < 1e-4
    for mapped in taken.values():
        assert mapped.var((0, 2, 3), unbiased=False).mean().item() == pytest.approx(1, abs=0.1)


def test_the_penalty_alone_leaves_one_stage():
    mixture = Mixture(_trunk(), lasso=1.0)
    with torch.no_grad():
        mixture.alpha.add_(0.1 * torch.randn(5, generator=_generator(3)))
    first = int(mixture.coefficients().argmax())
    optimiser = torch.optim.SGD([mixture.alpha], lr=0.02)
    for _ in range(600):
        optimiser.zero_grad()
        mixture.penalty().backward()
        optimiser.step()
    coefficients = mixture.coefficients().detach().abs()
    assert int(coefficients.argmax()) == first
    assert coefficients.sort().values[:-1].max() < 0.05


@pytest.mark.parametrize("side", [None, 16])
def test_a_mixture_has_the_shape_it_states(side):
    trunk = _trunk("alexnet-mini").train()
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    mixture = Mixture(trunk, lasso=0.1)
    shape = mixture.shapes(side)["mixed"]
    assert all(torch.equal(before[key], value) for key, value in trunk.state_dict().items())
    side = side or mixture.input_side
    assert mixture(torch.rand(4, 3, side, side))["mixed"].shape[1:] == shape


def test_checkpoints_hold_the_trunk_once():
    task, _ = _prepared()
    trunk = {id(p) for p in task.backbone.parameters()}
    stored = [value.data_ptr() for value in task.state_dict().values() if value.numel()]
    assert len(set(stored)) == len(stored)
    for part in task.tasks.values():
        assert not trunk & {id(p) for p in part.parameters()}


# separate and joint


def test_each_update_trains_the_trunk_and_one_task():
    task, data = _prepared()
    specs = task.optimisers(task.recipe)
    assert list(specs) == list(TASKS)
    optimisers = {name: task.optimiser_of(name, specs[name], those) for name, those in task.parameters_of().items()}
    turns = []
    for name, loss in task.losses(_batch(task, data), STEP, _generator()):
        turns.append(name)
        before = {key: value.detach().clone() for key, value in task.named_parameters()}
        optimisers[name].zero_grad()
        loss.total.backward()
        optimisers[name].step()
        moved = {key for key, value in task.named_parameters() if not torch.equal(before[key], value)}
        assert any(key.startswith("backbone.conv1") for key in moved)
        assert any(key.startswith(f"tasks.{name}.") for key in moved)
        assert all(key.startswith(("backbone.", f"tasks.{name}.")) for key in moved)
    assert turns == list(TASKS)


def test_one_task_alone_asks_for_nothing_of_the_others():
    task, data = _prepared(tasks=["colorization"])
    still = data[0]._replace(clip=None)
    view = task.view(still, np.random.default_rng(0))
    assert list(view) == ["colorization"]
    ((name, _),) = task.losses(_batch(task, data), STEP, _generator())
    assert list(task.parameters_of()) == [name] == ["colorization"]


def test_alone_or_joint_a_task_starts_from_the_same_loss():
    joint, data = _prepared(tasks=["exemplar", "colorization"])
    alone, _ = _prepared(tasks=["exemplar"])
    batch = _batch(joint, data)
    first = next(iter(joint.losses(batch, STEP, _generator())))[1]
    (only,) = (loss for _, loss in alone.losses(Batch(batch.views, batch.index, batch.label), STEP, _generator()))
    torch.testing.assert_close(first.total, only.total)
    torch.testing.assert_close(first.metrics["skill"] * 2, only.metrics["skill"])


def test_skill_is_the_mean_over_tasks_of_what_each_is_above_chance():
    task, _ = _prepared()
    found = measure(task, ToyImages(32, name="toy/held"), batch=32, seed=0, fabric=fabric(), workers=0)
    assert (found["metric"], found["chance"], found["n"]) == ("skill", 0.0, 32)
    guess = task.tasks["colorization"].chance
    own = [("accuracy_context-prediction", 1 / 8), ("rebalanced_accuracy_colorization", guess)]
    own += [("retrieval_exemplar", 1 / 16), ("explained_motion-segmentation", 0.0)]
    skills = [(found["all"][key] - chance) / (1 - chance) for key, chance in own]
    assert found["value"] == pytest.approx(sum(skills) / 4, abs=1e-5)
    assert {"loss_colorization", "loss_context-prediction", "iou_motion-segmentation"} <= found["all"].keys()


def test_the_picture_has_three_columns_a_task():
    task, data = _prepared()
    drawn = task.eval().picture(_batch(task, data, size=3), _generator())
    assert drawn.shape == (3, 12, 3, 28, 28)
    assert drawn.dtype == torch.uint8


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tasks": ["colorisation"]}, "did you mean colorization"),
        ({"tasks": []}, "multi-task trains each of one or more tasks once"),
        ({"tasks": ["exemplar", "exemplar"]}, "multi-task trains each of one or more tasks once"),
        ({"lasso": -0.1}, "the lasso of multi-task cannot weigh -0.1"),
        ({"lasso": math.nan}, "the lasso of multi-task cannot weigh nan"),
        ({"lasso": "much"}, "lasso cannot be 'much'"),
    ],
)
def test_bad_options_are_one_line(options, line):
    with pytest.raises(BenchError, match=line) as refused:
        make("multi-task", "alexnet-smoke", options, seed=0)
    assert "\n" not in str(refused.value)
