"""Seeds follow gradients, copies stay in their ranges, triplets are triplets, and held-out images need no class."""

import math

import pytest
import torch
from toydata import ToyImages

from bench.data.batch import Batch
from bench.data.loader import Loader
from bench.errors import BenchError
from bench.methods import exemplar
from bench.methods.base import make
from bench.methods.pretext import measure
from bench.training.device import fabric
from bench.training.task import Step


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _prepared(data, **options):
    task = make("exemplar", "alexnet-smoke", options, seed=0)
    task.setup(data)
    task.prepare(data, _generator())
    return task


def _batch(task, data, size=16):
    with Loader(data, task.view, seed=0, batch=size, workers=0) as loader:
        return next(iter(loader.epoch(0, task.order(0, len(data), _generator()))))


# --- seeds


def test_seeds_lie_where_the_gradient_is_and_inside_the_image():
    images = torch.zeros(400, 3, 48, 48, dtype=torch.uint8)
    images[..., 30:36, 30:36] = 255  # the one thing to see
    x, y, half = exemplar.draw_seeds(images, _generator()).unbind(1)
    thing = 2 * 33 / 48 - 1
    near = half + 2 * 4 / 48  # its edge is within the patch
    assert ((x - thing).abs() < near).all()
    assert ((y - thing).abs() < near).all()
    assert (x.abs() + half <= 1 + 1e-6).all()
    assert (y.abs() + half <= 1 + 1e-6).all()
    assert (half >= 1 / 3 - 1e-6).all()
    assert (half <= 1 / 2 + 1e-6).all()


def test_patches_come_in_proportion_to_their_energy():
    """Two equal edges, one with twice the step: four times the energy, four times as many seeds."""
    images = torch.zeros(4000, 3, 48, 48, dtype=torch.uint8)
    images[..., 23:25, 10:12] = 50
    images[..., 23:25, 36:38] = 100
    x = exemplar.draw_seeds(images, _generator())[:, 0]
    left, right = (x < -0.05).sum().item(), (x > 0.05).sum().item()
    assert right / left == pytest.approx(4, rel=0.15)


def test_a_flat_image_has_a_seed_too():
    assert exemplar.draw_seeds(torch.full((5, 3, 32, 32), 9, dtype=torch.uint8), _generator()).isfinite().all()


# --- copies


def test_an_untransformed_copy_is_the_patch(monkeypatch):
    def middle(low, high, size, generator):
        return torch.full((size,) if isinstance(size, int) else size, (low + high) / 2)

    monkeypatch.setattr(exemplar, "_uniform", middle)
    coarse = torch.rand(1, 3, 8, 8, generator=_generator())
    image = torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear")
    seed = torch.tensor([[0.25, -0.5, 1 / 3]])  # 16 px wide around column 30, row 12
    copies = exemplar.cut(image, seed, 2, 16, _generator())
    patch = image[0, :, 4:20, 22:38]
    assert (copies[0] - patch).abs().max() < 0.03  # sampled twice as fine and averaged: a blur of half a pixel
    assert torch.equal(copies[0], copies[1])
    recoloured = exemplar.recolour(patch[None], torch.full((3,), 0.5), torch.eye(3), _generator())
    torch.testing.assert_close(recoloured[0], patch, atol=0.02, rtol=0)  # the middle of 0.7 and 1.4 is 0.99


def test_translation_scale_and_rotation_stay_in_their_ranges():
    """Copies of an image of its own coordinates: where each copy's middle and edges came from is read off it."""
    side, count = 65, 400
    axis = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
    x, y = axis.expand(side, side), axis[:, None].expand(side, side)
    image = torch.stack([x, y, torch.zeros_like(x)])[None]
    half = 0.25
    copies = exemplar.cut(image, torch.tensor([[0.0, 0.0, half]]), count, 16, _generator())
    at = copies[:, :2]
    middle = at.mean((2, 3))
    assert middle.abs().max() <= 0.2 * 2 * half + 1e-3
    assert middle.abs().max() > 0.18 * 2 * half
    across = at[:, :, :, -1].mean(2) - at[:, :, :, 0].mean(2)  # from the left edge to the right one
    width = across.norm(dim=1) / (15 / 16) / (2 * half)
    assert 1 / 1.4 - 1e-2 < width.min() < 1 / 1.35
    assert 1 / 0.75 < width.max() < 1 / 0.7 + 1e-2
    angle = torch.atan2(across[:, 1], across[:, 0]).rad2deg()
    assert 18 < angle.abs().max() <= 20.1


def test_copies_of_a_seed_stand_together_and_differ():
    data = ToyImages(32)
    task = _prepared(data, copies=4, classes=32)
    batch = _batch(task, data, 6)
    copies = task._copies(batch.views, task.seeds[task.class_of[batch.index]], _generator())
    assert copies.shape == (24, 3, task.patch, task.patch)
    assert copies.min() >= 0
    assert copies.max() <= 1
    red = torch.zeros_like(batch.views)
    red[2, 0] = 255
    of_red = exemplar.cut(red / 255, task.seeds[:6], 4, task.patch, _generator()).mean((1, 2, 3)).view(6, 4)
    assert torch.equal(of_red > 0.1, torch.arange(6)[:, None].expand(6, 4) == 2)
    assert (copies[0] - copies[1]).abs().max() > 0.01


def test_contrast_scales_the_principal_components(monkeypatch):
    """Each projection by a factor of 0.5 to 2, one draw a patch and component."""
    axes = torch.linalg.qr(torch.randn(3, 3, generator=_generator())).Q
    patches = 0.5 + 0.02 * torch.randn(300, 3, 4, 4, generator=_generator(1))
    seen = []
    monkeypatch.setattr(exemplar, "rgb_to_hsv", lambda rgb: seen.append(rgb) or rgb)
    exemplar.recolour(patches, torch.full((3,), 0.5), axes, _generator())
    before, after = ((axes @ (x.flatten(2) - 0.5)) for x in (patches, seen[0]))
    factors = (after * before).sum(2) / before.square().sum(2)
    torch.testing.assert_close(after, factors[:, :, None] * before, atol=1e-4, rtol=0)
    assert 0.5 - 1e-3 < factors.min() < 0.52
    assert 1.9 < factors.max() < 2 + 1e-3
    assert factors.log().mean().abs() < 0.1


def test_grey_patches_stay_nearly_grey_in_value_order():
    """Value is changed by a rising function, one a patch, so the order of grey levels survives."""
    ramp = torch.linspace(0.1, 0.9, 16).view(1, 1, 4, 4).expand(50, 3, 4, 4)
    value = exemplar.recolour(ramp, torch.full((3,), 0.5), torch.eye(3), _generator()).amax(1).flatten(1)
    assert (value.diff(dim=1) >= -1e-5).all()


# --- surrogate classes


def test_every_class_has_one_image_and_all_are_drawn_equally_often():
    task = _prepared(ToyImages(96), classes=24)
    assert sorted(task.class_of[task.class_of >= 0].tolist()) == list(range(24))
    order = task.order(0, 96, _generator())
    assert torch.bincount(task.class_of[order]).tolist() == [4] * 24
    assert not torch.equal(order, task.order(1, 96, _generator(1)))


@pytest.mark.parametrize(("images", "classes"), [(20, 2), (100, 5), (240, 12)])
def test_by_default_a_twentieth_of_the_images_have_a_class(images, classes):
    task = _prepared(ToyImages(images))
    assert task.output[-1].out_features == len(task.seeds) == classes
    assert (task.class_of >= 0).sum() == classes


def test_every_image_may_have_a_class():
    task = _prepared(ToyImages(40), classes=40)
    assert sorted(task.order(0, 40, _generator()).tolist()) == list(range(40))


def test_seeds_survive_in_buffers():
    data = ToyImages(40)
    task = _prepared(data, classes=10)
    fresh = make("exemplar", "alexnet-smoke", {"classes": 10}, seed=1)
    fresh.setup(data)
    fresh.load_state_dict(task.state_dict())
    assert torch.equal(fresh.seeds, task.seeds)
    assert torch.equal(fresh.order(3, 40, _generator()), task.order(3, 40, _generator()))


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_held_out_images_need_no_class(loss):
    """Their indices mean nothing to the task: a larger data set than the one it was trained on is measured as well."""
    task = _prepared(ToyImages(20), loss=loss)
    held = ToyImages(64, name="toy/held")
    found = measure(task, held, batch=32, seed=0, fabric=fabric(), workers=0)
    assert found["metric"] == "retrieval"
    assert 0 <= found["value"] <= 1
    assert found["chance"] == 1 / exemplar.WAYS
    with Loader(held, task.view, seed=0, batch=16, workers=0) as loader:
        batch = next(loader.in_order())
    foreign = Batch(batch.views, batch.index + 10_000, batch.label)
    a, b = (task.heldout(x, Step(0, 0, 1), _generator()) for x in (batch, foreign))
    assert a == b


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "sofmax"}, "did you mean softmax"),
        ({"copies": 1}, "at least 2 copies"),
        ({"classes": 1}, "at least 2"),
        ({"classes": 41}, "41 classes need as many images"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(BenchError, match=says):
        make("exemplar", "alexnet-smoke", options, seed=0).setup(ToyImages(40))


# --- triplets


def _on_circle(*degrees):
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_distances_by_hand():
    embeddings = _on_circle(0, 90, 180, 270).view(2, 2, 2) * torch.tensor([1.0, 5.0, 2.0, 9.0]).view(2, 2, 1)
    positive, negative = exemplar.distances(embeddings)
    torch.testing.assert_close(positive, torch.full((4, 1), 2.0))
    torch.testing.assert_close(negative, torch.tensor([[4.0, 2], [2, 4], [4, 2], [2, 4]]), atol=1e-5, rtol=0)


def test_semi_hard_takes_the_nearest_negative_that_is_farther_than_the_positive():
    positive = torch.tensor([[0.5], [0.5], [0.5]])
    negative = torch.tensor([[0.2, 0.7, 0.9], [0.1, 0.2, 0.3], [1.5, 1.2, 3.0]])
    expected = [0.5 + 0.5 - 0.7, 0.5 + 0.5 - 0.3, 0.0]  # 0.7; none is farther: the farthest, 0.3; 1.2 is beyond
    assert float(exemplar.semi_hard(positive, negative)) == pytest.approx(sum(expected) / 3)


def test_semi_hard_agrees_with_loops():
    embeddings = torch.randn(5, 3, 4, generator=_generator())
    unit = torch.nn.functional.normalize(embeddings.flatten(0, 1), dim=1)
    losses = []
    for a in range(15):
        for p in range(15):
            if a == p or a // 3 != p // 3:
                continue
            to_positive = float((unit[a] - unit[p]).square().sum())
            others = [float((unit[a] - unit[n]).square().sum()) for n in range(15) if n // 3 != a // 3]
            farther = [d for d in others if d > to_positive]
            losses.append(max(0.0, 0.5 + to_positive - (min(farther) if farther else max(others))))
    found = exemplar.semi_hard(*exemplar.distances(embeddings))
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_ordered_counts_triplets():
    positive = torch.tensor([[0.1, 0.6], [0.2, 0.2]])
    negative = torch.tensor([[0.5, 0.7], [0.1, 0.3]])
    assert float(exemplar.ordered(positive, negative)) == pytest.approx((2 + 1 + 1 + 1) / 8)


def test_one_image_alone_has_no_negative():
    with pytest.raises(BenchError, match="at least 2 images"):
        exemplar.distances(torch.randn(1, 4, 3))


def test_the_triplet_loss_learns_on_one_batch_and_reaches_every_stage():
    data = ToyImages(32)
    task = _prepared(data, loss="triplet", copies=4).train()
    batch = _batch(task, data)
    optimiser = torch.optim.Adam(task.parameters(), lr=2e-3)
    curve = []
    for _ in range(30):
        ((_, loss),) = task.losses(batch, Step(0, 0, 1), _generator())
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        curve.append(float(loss.metrics["ordered"]))
    assert sum(curve[-5:]) / 5 > max(0.8, curve[0] + 0.05), curve[::6]
    assert all(p.grad.abs().sum() > 0 for n, p in task.named_parameters() if n.endswith("conv.weight"))


# --- retrieval


def test_retrieval_of_perfect_random_and_dead_features():
    copies = torch.randn(64, 1, 32, generator=_generator()).expand(64, 3, 32)
    assert float(exemplar.retrieval(copies)) == 1
    assert float(exemplar.retrieval(torch.ones(64, 3, 32))) == 0, "the same for all is not knowing"
    noise = torch.randn(4000, 2, 32, generator=_generator())
    assert float(exemplar.retrieval(noise)) == pytest.approx(1 / 16, abs=0.015)
    few = torch.randn(5, 1, 32, generator=_generator()).expand(5, 2, 32)
    assert float(exemplar.retrieval(few)) == 1
