"""Masks of the right size and shape, a loss that looks only where it should, and a metric that is 0 for the mean."""

import math

import pytest
import torch
from toydata import ToyImages

from bench.data.batch import Batch
from bench.errors import BenchError
from bench.methods import context_encoder
from bench.methods.base import make
from bench.methods.context_encoder import ChannelwiseLinear, centre, random_regions
from bench.runfolder import RunFolder
from bench.training.device import fabric
from bench.training.loop import Execution, Interrupted, train
from bench.training.task import Step


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _prepared(backbone="alexnet-smoke", **options):
    task, data = make("context-encoder", backbone, options, seed=0), ToyImages(40, side=64)
    task.setup(data)
    task.prepare(data, _generator())
    return task


def _batch(task, count=6):
    side = task.backbone.input_side
    views = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=_generator(9))
    return Batch(views, torch.arange(count), torch.full((count,), -1))


def _loss(task, batch, seed=0):
    ((name, loss),) = task.losses(batch, Step(0, 0, 1), _generator(seed))
    assert name == "main"
    return loss


# --- masks


@pytest.mark.parametrize("side", [28, 56, 224])
def test_random_regions_drop_a_fifth_to_three_tenths_each_its_own(side):
    regions = random_regions(40, side, _generator())
    assert regions.shape == (40, 1, side, side)
    area = regions.float().mean((1, 2, 3))
    assert area.min() >= 0.2
    assert area.max() <= 0.3
    assert len({tuple(r.flatten().tolist()) for r in regions}) == 40
    assert torch.equal(regions, random_regions(40, side, _generator()))
    assert not torch.equal(regions, random_regions(40, side, _generator(1)))


def test_random_regions_are_blobs_of_about_a_cell_and_cover_every_place_alike():
    regions = random_regions(1500, 56, _generator()).float()
    flips = (regions.diff(dim=3).abs() > 0).float().sum(3).mean()
    pixels_alone = 2 * 0.25 * 0.75 * 55  # what 56 independent pixels a row would change
    assert flips < pixels_alone / 3
    covered = regions.mean((0, 1))
    assert covered.min() > 0.15
    assert covered.max() < 0.30


@pytest.mark.parametrize(("side", "band"), [(128, 4), (56, 2), (28, 1)])
def test_the_centre_is_a_quarter_with_a_heavy_visible_band(side, band):
    dropped, weight = centre(side)
    assert (weight > 0).float().mean() == 0.25
    hole = side // 2 - 2 * band
    assert dropped.sum() == hole**2
    assert (weight[dropped] == 1).all()
    assert (weight[(weight > 0) & ~dropped] == 10).all()
    for turned in (dropped.flip(2), dropped.flip(3), dropped.transpose(2, 3)):
        assert torch.equal(turned, dropped)


# --- what the network sees, and what is asked of it


@pytest.mark.parametrize("mask", context_encoder.MASKS)
def test_dropped_pixels_are_the_mean_colour_to_the_network(mask):
    """The hole tells nothing: what was in it does not change what is painted."""
    task = _prepared(mask=mask).eval()
    images = _batch(task).views.float() / 255
    dropped, _ = task._draw_masks(len(images), _generator())
    other = torch.where(dropped, torch.rand(images.shape, generator=_generator(3)), images)
    outside = torch.where(dropped, images, torch.rand(images.shape, generator=_generator(4)))
    with torch.no_grad():
        painted = task.paint(images, dropped)
        assert torch.equal(task.paint(other, dropped), painted)
        assert not torch.allclose(task.paint(outside, dropped), painted)
    assert painted.shape == images.shape


def test_the_mean_is_that_of_the_data():
    task = _prepared()
    images = ToyImages(40, side=64).images.float() / 255
    torch.testing.assert_close(task.mean.flatten(), images.mean((0, 2, 3)), atol=0.01, rtol=0)


def test_only_the_hole_counts_with_random_regions(monkeypatch):
    task, batch = _prepared().eval(), _batch(_prepared())
    dropped, _ = task._draw_masks(len(batch), _generator())
    images = batch.views.float() / 255
    monkeypatch.setattr(task, "paint", lambda images, dropped: torch.where(dropped, images, images + 0.7))
    loss = _loss(task, batch)
    assert float(loss.total) == pytest.approx(0, abs=1e-9)
    assert float(loss.metrics["explained"]) == pytest.approx(1)
    monkeypatch.setattr(task, "paint", lambda images, dropped: images + 0.5 * dropped)
    assert float(_loss(task, batch).total) == pytest.approx(0.25, rel=1e-5)
    assert dropped.any(dim=3).any()
    assert images.max() <= 1


def test_the_band_weighs_ten_times_a_pixel_of_the_hole(monkeypatch):
    task, batch = _prepared(mask="centre").eval(), _batch(_prepared())
    dropped, weight = centre(28)
    band = (weight > 0) & ~dropped
    by_part = []
    for part in (dropped, band, weight == 0):
        monkeypatch.setattr(task, "paint", lambda images, _, part=part: images + part)
        by_part.append(float(_loss(task, batch).total))
    monkeypatch.setattr(task, "paint", lambda images, _: images + 0.5)
    assert float(_loss(task, batch).total) == pytest.approx(0.25, rel=1e-5), "a mean over pixels, whatever the batch"
    pixels = float(band.sum()) / float(dropped.sum())
    assert by_part[1] / by_part[0] == pytest.approx(10 * pixels)
    assert by_part[2] == 0


@pytest.mark.parametrize("mask", context_encoder.MASKS)
def test_painting_the_mean_explains_nothing(mask, monkeypatch):
    task = _prepared(mask=mask)
    monkeypatch.setattr(task, "paint", lambda images, dropped: task.mean.expand_as(images))
    assert float(_loss(task, _batch(task)).metrics["explained"]) == pytest.approx(0, abs=1e-6)
    assert task.chance == 0


# --- the adversary


def _adversarial(mask="centre", weight=0.001):
    return _prepared(mask=mask, adversarial=weight)


def test_without_it_there_is_no_discriminator_and_nothing_else_changes():
    plain, judged = _prepared(), _adversarial("random-region")
    assert plain.optimisers(plain.recipe) == plain.recipe.optimisers()
    assert set(plain.parameters_of()) == {"main"}
    theirs = judged.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in plain.state_dict().items())
    assert {key.split(".")[0] for key in theirs.keys() - plain.state_dict().keys()} == {"discriminate"}


def test_the_discriminator_learns_at_a_tenth_of_the_rate_at_every_suite():
    task = _adversarial()
    for recipe, rate in ((task.recipe, 2e-3), (task.recipe.scaled(lr=4.0), 8e-3)):
        found = task.optimisers(recipe)
        assert set(found) == set(task.parameters_of()) == {"main", "discriminator"}
        assert found["main"].lr == pytest.approx(rate)
        assert found["discriminator"].lr == pytest.approx(rate / 10)
        assert found["discriminator"].betas == (0.5, 0.999)


def test_the_two_optimisers_share_out_all_parameters():
    task = _adversarial()
    groups = [{id(p) for p in those} for those in task.parameters_of().values()]
    assert groups[0] | groups[1] == {id(p) for p in task.parameters()}
    assert not groups[0] & groups[1]


@pytest.mark.parametrize(("mask", "inside"), [("centre", 14), ("random-region", 28)])
def test_it_sees_the_square_that_is_painted_or_the_whole_image(mask, inside, monkeypatch):
    task, batch = _adversarial(mask), _batch(_prepared())
    seen = []
    monkeypatch.setattr(task.discriminate, "forward", lambda x: seen.append(x) or torch.zeros(len(x)))
    list(task.losses(batch, Step(0, 0, 1), _generator()))
    edge = (28 - inside) // 2
    images = batch.views[..., edge : 28 - edge, edge : 28 - edge].float() / 255
    assert [tuple(x.shape) for x in seen] == [(6, 3, inside, inside)] * 3
    torch.testing.assert_close(seen[0], 2 * images - 1)
    assert torch.equal(seen[1], seen[2])
    assert (seen[1].requires_grad, seen[2].requires_grad) == (False, True)


def test_the_loss_by_hand(monkeypatch):
    """Half a unit off everywhere is a squared error of 1 in [-1, 1]; the band counts ten times; the judge is unsure."""
    task, batch = _adversarial(weight=0.25), _batch(_prepared())
    torch.nn.init.zeros_(task.discriminate.last.weight)
    monkeypatch.setattr(task, "paint", lambda images, dropped: images + 0.5)
    (first, judged), (second, loss) = task.losses(batch, Step(0, 0, 1), _generator())
    assert (first, second) == ("discriminator", "main")
    hole = centre(28)[0].sum()
    squared = float(hole + 10 * (196 - hole)) / 196
    assert float(judged.total.detach()) == pytest.approx(math.log(2))
    assert float(loss.total.detach()) == pytest.approx(0.75 * squared + 0.25 * math.log(2))
    assert "explained" in loss.metrics


def test_it_is_asked_again_after_its_step():
    task, batch = _adversarial(), _batch(_prepared())
    (_, _), (_, unmoved) = task.losses(batch, Step(0, 0, 1), _generator())
    stream = task.losses(batch, Step(0, 0, 1), _generator())
    next(stream)[1].total.backward()
    judge = list(task.discriminate.parameters())
    assert all(p.grad is not None for p in judge)
    assert all(p.grad is None for p in task.parameters_of()["main"])
    with torch.no_grad():
        for parameter in judge:
            parameter -= parameter.grad
    assert not torch.equal(next(stream)[1].total, unmoved.total)


def test_stopped_and_resumed_with_the_adversary_is_bit_identical(tmp_path):
    def run(folder, stop):
        data, calls = ToyImages(), iter(range(100))
        task = make("context-encoder", "alexnet-smoke", {"mask": "centre", "adversarial": 0.001}, seed=0)
        attempt = folder.take("test")
        how = Execution(workers=0, stop=lambda: next(calls) == stop)
        recipe = task.recipe.scaled(epochs=1, batch=32)
        try:
            record = train(task, data, recipe, seed=0, fabric=fabric(), attempt=attempt, how=how)
        except Interrupted:
            attempt.end("CANCELLED", "test")
            return None
        return task.state_dict(), record["curve"]

    spec = {"kind": "pretrain", "method": "context-encoder", "backbone": "b", "suite": "s", "seed": 0}
    whole, curve = run(RunFolder.create(tmp_path / "whole", spec), None)
    folder = RunFolder.create(tmp_path / "broken", spec)
    assert run(folder, 0) is None
    pieces, again = run(folder, None)
    assert again == curve
    assert curve[-1]["lr"]["discriminator"] == pytest.approx(curve[-1]["lr"]["main"] / 10)
    assert all(torch.equal(value, pieces[key]) for key, value in whole.items())


@pytest.mark.parametrize("weight", [-0.1, 1.0, "yes"])
def test_a_weight_that_leaves_no_reconstruction_is_refused(weight):
    with pytest.raises(BenchError, match="adversarial"):
        _adversarial(weight=weight)


# --- the network


def test_the_channelwise_layer_keeps_channels_apart_and_sees_every_place():
    layer = ChannelwiseLinear(3, 4, 5)
    x = torch.zeros(1, 3, 4, 4)
    base = layer(x)
    x[0, 1, 3, 0] = 1.0
    changed = (layer(x) - base).abs() > 0
    assert changed.shape == (1, 3, 5, 5)
    assert changed[0, 1].all()
    assert not changed[0, [0, 2]].any()
    assert layer.weight.numel() == 3 * 16 * 25  # not (3 * 16) * (3 * 25)


@pytest.mark.parametrize(
    ("backbone", "start", "doublings"),
    [("alexnet-smoke", 2, 4), ("alexnet-mini", 4, 4), ("alexnet", 7, 5), ("caffenet", 8, 5)],
)
def test_the_decoder_reaches_the_crop(backbone, start, doublings):
    task = make("context-encoder", backbone, {}, seed=0).eval()
    ups = [m for m in task.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    assert (task.across[0].out, len(ups)) == (start, doublings)
    side = task.backbone.input_side
    images = torch.rand(1, 3, side, side)
    with torch.no_grad():
        assert task.paint(images, torch.zeros(1, 1, side, side, dtype=torch.bool)).shape == images.shape


def test_alexnet_has_the_papers_channels():
    task = make("context-encoder", "alexnet", {}, seed=0)
    ups = [m for m in task.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    assert [m.out_channels for m in ups] == [128, 64, 64, 32, 3]


def test_the_picture_shows_hole_filling_and_truth():
    task = _prepared("alexnet-mini").eval()
    batch = _batch(task, 3)
    with torch.no_grad():
        drawn = task.picture(batch, _generator(5))
    dropped, _ = task._draw_masks(3, _generator(5))
    assert drawn.shape == (3, 3, 3, 56, 56)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, 2], batch.views)
    for column in (0, 1):
        assert torch.equal(
            drawn[:, column][~dropped.expand(-1, 3, -1, -1)], batch.views[~dropped.expand(-1, 3, -1, -1)]
        )


def test_an_unknown_mask_is_refused():
    with pytest.raises(BenchError, match="did you mean centre"):
        make("context-encoder", "alexnet-smoke", {"mask": "center"}, seed=0)
