"""Sizes, the swapped labels, one update of all three at once, and a metric that is 0 for the mean image."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from toydata import ToyImages

from bench.checkpoints import card
from bench.data.base import Sample
from bench.data.batch import Batch
from bench.errors import BenchError
from bench.methods._gan import told_apart
from bench.methods.base import make
from bench.runfolder import RunFolder
from bench.training.device import fabric
from bench.training.loop import Execution, train
from bench.training.task import Step


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _prepared(backbone="alexnet-smoke", **options):
    task, data = make("bigan", backbone, options, seed=0), ToyImages(40)
    task.setup(data)
    task.prepare(data, _generator())
    return task


def _batch(task, count=8):
    views = torch.stack([task.view(ToyImages(40)[i], np.random.default_rng(i)) for i in range(count)])
    return Batch(views, torch.arange(count), torch.full((count,), -1))


def _losses(task, batch, seed=0):
    return task.losses(batch, Step(0, 0, 1), _generator(seed))


@pytest.fixture(scope="module")
def trained():
    """A task whose statistics and weights have moved."""
    task = _prepared(noise=8)
    optimisers = {n: torch.optim.Adam(list(ps), lr=2e-3, betas=(0.5, 0.999)) for n, ps in task.parameters_of().items()}
    for update in range(10):
        for name, loss in _losses(task, _batch(task, 16), update):
            optimisers[name].zero_grad()
            loss.total.backward()
            optimisers[name].step()
    return task.eval()


# --- sizes


@pytest.mark.parametrize(
    ("backbone", "side", "small", "features"),
    [
        ("alexnet-smoke", 28, 16, 16 * 3 * 3),
        ("alexnet-mini", 56, 32, 128 * 7 * 7),
        ("alexnet", 112, 64, 256 * 6 * 6),
        ("caffenet", 112, 64, 256 * 6 * 6),
    ],
)
def test_sides_and_features(backbone, side, small, features):
    task = make("bigan", backbone, {}, seed=0).eval()
    assert (task.side, task.small_side, task.to_code.in_features) == (side, small, features)
    crops = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=_generator())
    with torch.no_grad():
        code = task.encode(crops)
        again = task.generate(code)
    assert code.shape == (2, 200)
    assert again.shape == task.small(crops).shape == (2, 3, small, small)


def test_alexnet_gets_the_papers_widths():
    task = make("bigan", "alexnet", {}, seed=0)
    ups = [m.out_channels for m in task.generate.modules() if isinstance(m, nn.ConvTranspose2d)]
    downs = [m.out_channels for m in task.discriminate.modules() if isinstance(m, nn.Conv2d)]
    assert ups == [256, 128, 64, 3]
    assert downs == [64, 128, 256, 512]
    assert task.generate.first[0].weight.shape == (512 * 16, 200)


def test_views_are_crops_that_are_never_mirrored():
    """A ramp from left to right stays one."""
    task = _prepared()
    image = torch.arange(0, 256, 8, dtype=torch.uint8).expand(3, 32, 32)
    views = [task.view(Sample(image, 0, -1), np.random.default_rng(i)) for i in range(30)]
    assert all((v.int().diff(dim=2) == 8).all() for v in views)
    assert len({int(v[0, 0, 0]) for v in views}) == 5, "four pixels of room"


def test_small_images_are_scaled_to_one_and_averaged():
    task = make("bigan", "alexnet", {}, seed=0)
    crops = torch.zeros(3, 3, 112, 112, dtype=torch.uint8)
    crops[1] = 255
    crops[2] = 255 * (torch.arange(112) % 2)
    small = task.small(crops)
    assert (small[0] == -1).all()
    torch.testing.assert_close(small[1], torch.ones(3, 64, 64))
    assert small[2, :, :, 4:-4].abs().max() < 0.35, "a pattern finer than its pixels is grey"


def test_codes_are_uniform_and_the_encoders_lie_in_the_same_cube():
    task = _prepared()
    drawn = task.draw(2000, _generator())
    assert drawn.abs().max() <= 1
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.var() == pytest.approx(1 / 3, abs=0.01)
    assert torch.equal(drawn, task.draw(2000, _generator()))
    code = task.encode(_batch(task).views)
    assert code.abs().max() < 1
    assert code.std() > 0.01


# --- the game


def test_the_generator_learns_the_opposite_of_the_discriminator():
    task = _prepared()
    batch = _batch(task)
    (_, of_both), (_, of_judge) = copy.deepcopy(task).losses(batch, Step(0, 0, 1), _generator())
    drawn = task.draw(len(batch), _generator())
    with torch.no_grad():
        given = task.discriminate(task.small(batch.views), task.encode(batch.views))
        made = task.discriminate(task.generate(drawn), drawn)
    torch.testing.assert_close(of_judge.total.detach(), told_apart(real=given, made=made))
    torch.testing.assert_close(of_both.total.detach(), told_apart(real=made, made=given))


def test_all_three_step_from_the_weights_before():
    """The discriminator's loss after generator and encoder have stepped is that of the pairs before they did."""
    still, moved = _prepared(), _prepared()
    batch = _batch(still)
    (_, _), (_, expected) = _losses(still, batch)
    stream = _losses(moved, batch)
    name, loss = next(stream)
    assert name == "generator"
    loss.total.backward()
    with torch.no_grad():
        for parameter in moved.parameters_of()["generator"]:
            parameter -= parameter.grad
    name, loss = next(stream)
    assert name == "discriminator"
    assert torch.equal(loss.total, expected.total)


def test_the_discriminators_loss_moves_the_discriminator_only():
    task = _prepared()
    (_, _), (_, loss) = _losses(task, _batch(task))
    loss.total.backward()
    judge = {id(p) for p in task.discriminate.parameters()}
    assert {id(p) for p in task.parameters() if p.grad is not None} == judge
    groups = [{id(p) for p in those} for those in task.parameters_of().values()]
    assert groups[0] | groups[1] == {id(p) for p in task.parameters()}
    assert groups[1] == judge
    assert not groups[0] & groups[1]


def test_nothing_but_the_discriminator_teaches():
    """No reconstruction loss: where the judge is indifferent, generator and encoder have nothing to learn."""
    task = _prepared()
    nn.init.zeros_(task.discriminate.last.weight)
    _, loss = next(_losses(task, _batch(task)))
    assert float(loss.total.detach()) == pytest.approx(math.log(2))
    loss.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in task.parameters_of()["generator"])


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_each_player_alone_wins(player):
    task = _prepared(noise=8)
    nn.init.normal_(task.discriminate.last.weight, std=0.2)
    batch = _batch(task, 16)
    optimiser = torch.optim.Adam(list(task.parameters_of()[player]), lr=2e-3, betas=(0.5, 0.999))
    curve = []
    for _ in range(30):
        loss = dict(_losses(task, batch))[player]
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        curve.append(float(loss.total.detach()))
    assert curve[-1] < 0.8 * curve[0], curve[::6]


def test_the_discriminator_looks_at_the_code(trained):
    images = trained.small(_batch(trained).views)
    a, b = (trained.discriminate(images, trained.draw(len(images), _generator(seed))) for seed in (1, 2))
    assert not torch.allclose(a, b)


def test_micro_batches_are_one_update(tmp_path):
    from bench.methods.bigan import BiGAN

    folder = RunFolder.create(
        tmp_path, {"kind": "pretrain", "method": "bigan", "backbone": "b", "suite": "s", "seed": 0}
    )
    task, data = make("bigan", "alexnet-smoke", {}, seed=0), ToyImages(64)
    how = Execution(workers=0, micro_batch=8)
    recipe = BiGAN.recipe.scaled(epochs=1, batch=32)
    record = train(task, data, recipe, seed=0, fabric=fabric(), attempt=folder.take("test"), how=how)
    assert record["updates"] == 2
    assert {"loss_generator", "loss_discriminator"} <= record["curve"][-1].keys()
    assert task.generate.first[1].num_batches_tracked == 8, "statistics are of micro-batches"


# --- the metric and the picture


def _found(task, batch):
    with torch.no_grad():
        return {k: float(v) for k, v in task.heldout(batch, Step(0, 0, 1), _generator()).items()}


def test_the_mean_image_explains_nothing_and_the_image_itself_everything(monkeypatch):
    task = _prepared().eval()
    batch = _batch(task)
    monkeypatch.setattr(task.generate, "forward", lambda code: task.mean.expand(len(code), -1, -1, -1))
    found = _found(task, batch)
    assert found["explained"] == pytest.approx(task.chance, abs=1e-6)
    assert found["over_another"] == pytest.approx(0, abs=1e-6)
    monkeypatch.setattr(task.generate, "forward", lambda code: task.small(batch.views))
    found = _found(task, batch)
    assert found["explained"] == found["over_another"] == 1


def test_the_mean_is_that_of_the_small_images():
    task = _prepared()
    images = torch.stack([image[:, 2:30, 2:30] for image in ToyImages(40).images])
    torch.testing.assert_close(task.mean[0], task.small(images).mean(0), atol=1e-5, rtol=0)


def test_measuring_and_drawing_leave_everything_as_it_was(trained):
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    batch = _batch(trained)
    _found(trained, batch)
    with torch.no_grad():
        drawn = trained.picture(batch, _generator(3))
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    assert drawn.shape == (8, 3, 3, 16, 16)
    assert drawn.dtype == torch.uint8
    small = trained.small(batch.views)
    torch.testing.assert_close(drawn[:, 0].float() / 127.5 - 1, small, atol=0.005, rtol=0)
    with torch.no_grad():
        assert not torch.equal(drawn[:, 1], drawn[:, 2])
        again = trained.picture(batch, _generator(3))
    assert torch.equal(again, drawn)


# --- what is exported


def test_the_export_keeps_its_leaky_relus(trained, tmp_path):
    card.save(tmp_path, trained.export(), {"method": "bigan"})
    loaded, _ = card.load(tmp_path)
    images = _batch(trained).views
    for stage, features in loaded(images).items():
        assert features.min() < 0, stage
        torch.testing.assert_close(features, trained.backbone(images)[stage])
    assert loaded.config == {"backbone": "alexnet-smoke", "overrides": {"lrn": "none", "leak": 0.2}}


def test_lrn_is_left_out_as_in_the_paper():
    task = make("bigan", "caffenet-lrn", {}, seed=0)
    assert not any(isinstance(m, nn.LocalResponseNorm) for m in task.export().modules())


@pytest.mark.parametrize(("noise", "says"), [(0, "dimensions"), ("many", "noise cannot be 'many'")])
def test_codes_without_dimensions_are_refused(noise, says):
    with pytest.raises(BenchError, match=says):
        make("bigan", "alexnet-smoke", {"noise": noise}, seed=0)


def test_it_runs_in_bfloat16():
    task = _prepared()
    with torch.autocast("cpu", torch.bfloat16):
        totals = [loss.total for _, loss in _losses(task, _batch(task))]
        found = task.heldout(_batch(task), Step(0, 0, 1), _generator())
    assert all(total.dtype == torch.float32 and total.isfinite() for total in totals)
    assert all(value.isfinite() for value in found.values())
