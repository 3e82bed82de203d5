"""Context prediction: pairs and their labels, patch geometry, and what hides the shortcuts."""

import time

import numpy as np
import pytest
import torch

from bench.backbones.base import build
from bench.data.base import Sample
from bench.data.batch import Batch
from bench.errors import BenchError
from bench.methods._tiles import around_mean
from bench.methods.base import make
from bench.methods.context_prediction import PAIRS, ContextPrediction
from bench.training.task import Step

GREEN_MAGENTA = torch.tensor([-1.0, 2, -1]).view(3, 1, 1)


def _task(backbone="alexnet-smoke", **options):
    return make("context-prediction", backbone, options, seed=0)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _grids(*shape, seed=0):
    return torch.rand(*shape, generator=_generator(seed))


def test_forty_ordered_pairs_each_in_both_orders():
    assert len(PAIRS) == len({pair[:2] for pair in PAIRS}) == 40
    for first, second, label in PAIRS:
        assert (second, first, 7 - label) in PAIRS


def test_labels_number_the_places_around_the_first_patch():
    around = {second: label for first, second, label in PAIRS if first == 4}
    assert around == {0: 0, 1: 1, 2: 2, 3: 3, 5: 4, 6: 5, 7: 6, 8: 7}
    assert (0, 1, 4) in PAIRS
    assert (8, 5, 1) in PAIRS
    assert not any({0, 2} == {first, second} for first, second, _ in PAIRS)


def test_sizes_at_the_papers_scale_and_at_the_small_ones():
    sides = [ContextPrediction(build("alexnet-smoke", input_side=side)) for side in (224, 56, 28)]
    assert [(t.patch, t.step - t.patch, t.jitter, t.side) for t in sides] == [
        (64, 32, 5, 266),
        (16, 8, 1, 66),
        (8, 4, 1, 34),
    ]
    stated = ContextPrediction(build("alexnet-smoke", input_side=56), patch=64)
    assert (stated.patch, stated.step - stated.patch, stated.jitter, stated.side) == (64, 32, 5, 266)


@pytest.mark.parametrize("backbone", ["alexnet-smoke", "alexnet-mini"])
def test_patches_keep_a_gap_and_are_jittered(backbone):
    task = _task(backbone)
    ramp = torch.arange(task.side).float().expand(300, 3, task.side, task.side)
    across, down = (task.grids(x, _generator())[:, :, 0] * 255 for x in (ramp, ramp.mT))
    left, top = across[..., 0, 0].round().long(), down[..., 0, 0].round().long()
    for k in range(9):
        for corner, cell in ((left[:, k], k % 3), (top[:, k], k // 3)):
            assert set(corner.tolist()) == {cell * task.step + j for j in range(2 * task.jitter + 1)}
    gaps = left.view(-1, 3, 3).diff(dim=2) - task.patch
    assert gaps.min() >= task.patch // 2 - 2 * task.jitter > 0
    assert gaps.max() <= task.patch // 2 + 2 * task.jitter
    assert left.max() + task.patch <= task.side


@pytest.mark.parametrize("chromatic", ["drop", "project", "none"])
def test_every_disguise_has_mean_0_and_root_mean_square_50(chromatic):
    x = _task(chromatic=chromatic).disguise(_grids(6, 9, 3, 8, 8), _generator()) * 255
    torch.testing.assert_close(x.square().mean((2, 3, 4)).sqrt(), torch.full((6, 9), 50.0), rtol=1e-3, atol=0)
    loudest = x.square().mean((3, 4)).argmax(2, keepdim=True)
    assert x.mean((3, 4)).gather(2, loudest).abs().max() < 1e-3


def test_dropping_keeps_one_random_channel_and_a_hundredth_of_noise():
    task = _task("alexnet-mini")
    task.pixelations[:] = torch.eye(16)
    images = _grids(40, 9, 3, 16, 16)
    x = task.disguise(images, _generator()) * 255
    size = x.square().mean((3, 4)).sqrt()
    kept = size.argmax(2)
    assert torch.bincount(kept.flatten(), minlength=3).min() > 80
    torch.testing.assert_close(size.amax(2), torch.full((40, 9), 50 * 3**0.5), rtol=1e-3, atol=0)
    assert size.sort(2).values[..., :2].max() < 1.0
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(9), indexing="ij")
    was, now = images[rows, columns, kept].flatten(2), x[rows, columns, kept].flatten(2)
    correlation = torch.nn.functional.cosine_similarity(was - was.mean(2, keepdim=True), now, dim=2)
    torch.testing.assert_close(correlation, torch.ones(40, 9))


def test_projecting_takes_green_magenta_away_and_none_leaves_it():
    images = _grids(6, 9, 3, 8, 8)
    projected = _task(chromatic="project").disguise(images, _generator())
    assert (projected * GREEN_MAGENTA).sum(2).abs().max() < 1e-6
    plain = _task(chromatic="none").disguise(images, _generator())
    assert (plain * GREEN_MAGENTA).sum(2).abs().max() > 0.1


@pytest.mark.parametrize("chromatic", ["drop", "project", "none"])
def test_a_flat_patch_stays_finite(chromatic):
    assert _task(chromatic=chromatic).disguise(torch.full((2, 9, 3, 8, 8), 0.3), _generator()).isfinite().all()


def test_a_third_of_the_patches_is_pixelated_and_the_others_are_untouched():
    task = _task("alexnet-mini")
    grids = _grids(200, 9, 3, 16, 16)
    found = task._pixelate(grids, _generator())
    same = (found == grids).flatten(2).all(2)
    assert abs((~same).float().mean() - 0.33) < 0.03
    ranks = torch.linalg.matrix_rank(found[~same][:, 0], rtol=1e-4)
    assert ranks.min() == task.coarsest == 2
    assert ranks.max() == 14  # the whole part of what stays below 15
    flat = torch.full((200, 9, 3, 16, 16), 0.4)
    torch.testing.assert_close(task._pixelate(flat, _generator()), flat)


def test_fc7_is_a_linear_layer_on_the_concatenation():
    task = _task().eval()
    grids = task.disguise(_grids(2, 9, 3, 8, 8), _generator())
    features = task.tower(task.backbone, around_mean(grids))
    weight = torch.cat([task.fc7_first.weight, task.fc7_second.weight], 1)
    answers = task.answer(grids)
    for k, (first, second, _) in enumerate(PAIRS):
        hidden = task.norm7(torch.cat([features[:, first], features[:, second]], 1) @ weight.T).relu()
        torch.testing.assert_close(answers[:, k], task.classifier(task.fc8(hidden)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("said", range(8))
def test_a_constant_answer_scores_chance(said, monkeypatch):
    task = _task()
    logits = torch.nn.functional.one_hot(torch.full((4, 40), said), 8).float()
    monkeypatch.setattr(task, "answer", lambda grids: logits)
    batch = Batch(torch.zeros(4, 3, task.side, task.side, dtype=torch.uint8), torch.arange(4), torch.zeros(4))
    ((_, loss),) = task.losses(batch, Step(0, 0, 1), _generator())
    assert float(loss.metrics["accuracy"]) == task.chance == 1 / 8


def test_the_picture_puts_neighbours_where_the_network_says(monkeypatch):
    task = _task()
    right = torch.nn.functional.one_hot(task.position, 8).float().expand(2, 40, 8)
    monkeypatch.setattr(task, "answer", lambda grids: right)
    images = torch.randint(256, (2, 3, task.side, task.side), dtype=torch.uint8, generator=_generator())
    picture = task.picture(Batch(images, torch.arange(2), torch.zeros(2)), _generator())
    assert picture.shape[:2] == (2, 9)
    grid, placed = picture[:, :1], picture[:, 1:]
    filled = placed != placed[0, 0, 0, 12, 9]  # a pixel of the gap
    assert torch.equal(placed[filled], grid.expand_as(placed)[filled]), "every neighbour is where it was"
    assert torch.equal(filled.any(1), grid[:, 0] != grid[0, 0, 0, 12, 9]), "all eight and the centre are shown"


def test_images_are_shown_at_scales_between_the_grid_and_seven_patches():
    task = _task("alexnet-mini")
    ramp = (torch.arange(64).byte() * 4).expand(3, 64, 64)
    rng = np.random.default_rng(0)
    views = torch.stack([task.view(Sample(ramp, 0, -1), rng) for _ in range(300)]).float()
    assert views.shape[1:] == (3, 66, 66)
    middle = views[:, 0, 0, 20:46]
    sides = 4 * 64 / middle.diff(dim=1).mean(1)
    assert 64 < sides.min() < 70
    assert 105 < sides.max() < 116


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 200), (300, 100)])
def test_views_hold_the_grid_whatever_the_image(height, width):
    task = _task()
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    assert task.view(Sample(image, 0, -1), np.random.default_rng(0)).shape == (3, 34, 34)


def test_views_are_quick():
    task = _task("alexnet-mini")
    sample = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), 0, -1)
    generator = np.random.default_rng(0)
    began = time.process_time()
    for _ in range(500):
        task.view(sample, generator)
    assert 500 / (time.process_time() - began) > 400


@pytest.mark.parametrize(("chromatic", "says"), [("dorp", "drop"), (3, "cannot be 3"), (None, "cannot be None")])
def test_an_unknown_disguise_is_refused(chromatic, says):
    with pytest.raises(BenchError, match=says):
        _task(chromatic=chromatic)
