"""Jigsaw: where tiles lie, what is done to their colours, and which puzzle is shown."""

import time

import numpy as np
import pytest
import torch

from bench.backbones.base import build
from bench.data.base import Sample
from bench.errors import BenchError
from bench.methods.base import make
from bench.methods.jigsaw import Jigsaw


def _task(backbone="alexnet-smoke", **options):
    return make("jigsaw", backbone, {"permutations": 24, **options}, seed=0)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _sides(input_side):
    return Jigsaw(build("alexnet-smoke", input_side=input_side), permutations=2)


def test_sizes_at_the_papers_scale_and_at_the_small_ones():
    paper = _sides(224)
    assert (3 * paper.cell, paper.cell, paper.tile, paper.shift) == (255, 85, 64, 2)
    assert [(t.cell, t.tile, t.shift) for t in (_sides(56), _sides(28))] == [(21, 16, 1), (10, 8, 1)]
    stated = Jigsaw(build("alexnet-smoke", input_side=56), permutations=2, tile=64)
    assert (stated.cell, stated.tile, stated.shift) == (85, 64, 2)
    assert (
        stated.view(Sample(torch.zeros(3, 64, 80, dtype=torch.uint8), 0), np.random.default_rng(0)).shape[1:]
        == (255,) * 2
    )


@pytest.mark.parametrize(
    ("tile", "says"), [(7, "tiles cannot be 7 pixels wide: choose 8 or more"), (16.0, "tile cannot be 16.0")]
)
def test_tiles_that_leave_nothing_are_refused(tile, says):
    with pytest.raises(BenchError, match=says):
        _task(tile=tile)


@pytest.mark.parametrize("input_side", [28, 56, 112, 224, 227])
def test_tiles_stay_in_their_cells_channel_shift_included(input_side):
    task = _sides(input_side)
    side = 3 * task.cell
    ramp = torch.arange(side).float().expand(40, 3, side, side)
    for images, cell_of in ((ramp, lambda k: k % 3), (ramp.mT, lambda k: k // 3)):
        tiles = task.tiles(images, _generator()) * 255
        for k in range(9):
            low, high = task.cell * cell_of(k), task.cell * (cell_of(k) + 1) - 1
            assert tiles[:, k].min() > low - 0.5  # the projection's weights are not all positive
            assert tiles[:, k].max() < high + 0.5
        middles = tiles.mean((2, 3, 4))
        assert (middles.amax(0) - middles.amin(0)).min() > 0.5 * (task.cell - task.tile - task.shift)


def test_half_of_the_images_are_grey_and_half_of_the_others_projected():
    images = torch.randint(256, (1200, 3, 30, 30), dtype=torch.uint8, generator=_generator())
    tiles = _task().tiles(images, _generator())
    is_grey = (tiles - tiles.mean(2, keepdim=True)).abs().flatten(1).amax(1) < 1e-5
    along = (tiles * torch.tensor([-1.0, 2, -1]).view(3, 1, 1)).sum(2).abs().flatten(1).amax(1) < 1e-5
    assert abs(is_grey.float().mean() - 0.5) < 0.05
    assert abs((along & ~is_grey).float().mean() - 0.25) < 0.05
    plain = tiles[~along]
    torch.testing.assert_close(plain * 255, (plain * 255).round(), atol=1e-3, rtol=0)


def test_without_aberration_tiles_are_the_images_own_pixels():
    places = torch.arange(900).view(1, 1, 30, 30)
    images = torch.cat([places % 251, places % 241, places % 239], 1).byte()
    seen = set(zip(*(channel.flatten().tolist() for channel in images[0]), strict=True))
    tiles = (_task(chromatic="none").tiles(images.expand(20, -1, -1, -1), _generator()) * 255).round().byte()
    assert set(zip(*(tiles[:, :, k].flatten().tolist() for k in range(3)), strict=True)) <= seen
    assert _task(chromatic="none").tiles(images, _generator()).shape[-1] == 8


def test_each_channel_of_each_tile_is_shifted_on_its_own():
    texture = torch.randint(256, (400, 1, 30, 30), dtype=torch.uint8, generator=_generator()).expand(-1, 3, -1, -1)
    tiles = _task().tiles(texture, _generator())
    differ = (tiles - tiles[:, :, :1]).abs().flatten(2).amax(2) > 1e-3
    colour = differ.any(1)
    assert abs(colour.float().mean() - 0.5) < 0.08  # the others are grey
    # all three by the same of 2 x 2 shifts: 1 in 16; projected, channels differ where red and blue do: 3 in 4
    assert abs(differ[colour].float().mean() - (15 / 16 + 3 / 4) / 2) < 0.03


@pytest.mark.parametrize(("crop", "told"), [("random", True), ("resized", False)])
def test_whether_the_blocks_of_a_small_jpeg_tell_a_tiles_cell(crop, told):
    task = make("jigsaw", "alexnet-mini", {"permutations": 24, "crop": crop}, seed=0)
    lines = torch.zeros(3, 64, 64, dtype=torch.uint8)
    lines[:, :, ::8] = 255
    draw = np.random.default_rng(0)
    views = torch.stack([task.view(Sample(lines, 0), draw) for _ in range(600)])
    tiles = task.tiles(views, _generator())
    left, middle = (tiles[:, cell].mean((0, 1, 2)) for cell in (3, 4))
    assert ((left - middle).abs().max() > 0.15) == told, "where the lines lie, on the average"


def test_place_i_shows_tile_i_of_the_permutation():
    task = _task()
    cells = torch.arange(9).view(3, 3).repeat_interleave(10, 0).repeat_interleave(10, 1)
    images = (20 * cells).byte().expand(64, 3, 30, 30)
    puzzles, answer = task.puzzles(images, _generator())
    shown = (puzzles.mean((2, 3, 4)) * 255 / 20).round().long()
    assert torch.equal(shown, task.permutations[answer])
    assert len(answer.unique()) > 12


def test_the_picture_puts_a_solved_puzzle_back(monkeypatch):
    from bench.data.batch import Batch

    task = _task()
    images = torch.randint(256, (6, 3, 30, 30), dtype=torch.uint8, generator=_generator())
    _, answer = task.puzzles(images, _generator(4))
    monkeypatch.setattr(task, "solve", lambda puzzles: torch.nn.functional.one_hot(answer, 24).float())
    picture = task.picture(Batch(images, torch.arange(6), torch.zeros(6)), _generator(4))
    assert picture.dtype == torch.uint8
    assert torch.equal(picture[:, 1], picture[:, 2])
    assert not torch.equal(picture[:, 0], picture[:, 1])
    in_order = task._sheet(task.tiles(images, _generator(4)))
    assert torch.equal(picture[:, 2], in_order)


def test_a_tile_is_seen_without_its_context():
    task = _task().eval()
    tiles = torch.rand(2, 9, 3, 8, 8, generator=_generator())
    others = tiles.clone()
    others[:, 1:] = torch.rand(2, 8, 3, 8, 8, generator=_generator(1))
    a, b = (task.tower(task.backbone, x) for x in (tiles, others))
    torch.testing.assert_close(a[:, 0], b[:, 0])
    assert not torch.allclose(a[:, 1], b[:, 1])


def test_brightness_and_contrast_of_a_tile_tell_nothing():
    task = _task().eval()
    tiles = torch.rand(4, 9, 3, 8, 8, generator=_generator())
    scale = torch.rand(4, 9, 3, 1, 1, generator=_generator(1)) * 0.5 + 0.3
    torch.testing.assert_close(task.solve(tiles * scale + 0.1), task.solve(tiles), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("backbone", ["alexnet-smoke", "alexnet-mini"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90), (300, 200)])
def test_views_are_three_cells_wide_whatever_the_image(backbone, height, width):
    task = _task(backbone)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    view = task.view(Sample(image, 0, -1), np.random.default_rng(0))
    assert view.shape == (3, 3 * task.cell, 3 * task.cell)


def test_views_are_quick():
    task = _task("alexnet-mini")
    sample = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), 0, -1)
    generator = np.random.default_rng(0)
    began = time.process_time()
    for _ in range(500):
        task.view(sample, generator)
    assert 500 / (time.process_time() - began) > 400


@pytest.mark.parametrize("count", [0, 1, 10_001, 24.0, "24"])
def test_a_set_that_cannot_be_is_refused(count):
    with pytest.raises(BenchError, match="permutations"):
        _task(permutations=count)


def test_chance_follows_the_permutations():
    assert _task().chance == 1 / 24
    assert _task(permutations=100).chance == 1 / 100
