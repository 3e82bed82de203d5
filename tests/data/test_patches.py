"""Cutting patches and hiding shortcuts: exact pixels, no overlap, by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import patches


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cut_gives_the_pixels_that_slicing_gives():
    images = torch.randint(256, (3, 2, 12, 15), dtype=torch.uint8, generator=_generator())
    top, left = torch.tensor([[0, 7], [3, 2], [5, 1]]), torch.tensor([[10, 0], [4, 9], [5, 6]])
    found = patches.cut(images, top, left, 5)
    assert found.shape == (3, 2, 2, 5, 5)
    assert found.dtype == torch.uint8
    for b in range(3):
        for n in range(2):
            y, x = top[b, n], left[b, n]
            assert torch.equal(found[b, n], images[b, :, y : y + 5, x : x + 5])


def test_cut_can_take_each_channel_at_its_own_place():
    images = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6)
    top, left = torch.tensor([0, 1, 2]).expand(2, 1, 3), torch.tensor([3, 0, 1]).expand(2, 1, 3)
    found = patches.cut(images, top, left, 2)
    for c in range(3):
        y, x = top[0, 0, c], left[0, 0, c]
        assert torch.equal(found[:, 0, c], images[:, c, y : y + 2, x : x + 2])


@settings(max_examples=30, deadline=None)
@given(cells=st.integers(1, 4), side=st.integers(1, 9), room=st.integers(0, 6), seed=st.integers(0, 9))
def test_patches_of_a_grid_stay_in_their_cells_and_never_overlap(cells, side, room, seed):
    step = side + room
    top, left = patches.grid(5, cells, step, room, _generator(seed))
    assert top.shape == left.shape == (5, cells**2)
    for k in range(cells**2):
        for corner, cell in ((top[:, k], k // cells), (left[:, k], k % cells)):
            assert (corner >= cell * step).all()
            assert (corner + side <= (cell + 1) * step).all()
    extent = cells * step
    numbered = torch.arange(extent**2).view(1, 1, extent, extent).expand(5, 1, -1, -1)
    for seen in patches.cut(numbered, top, left, side):
        assert len(seen.unique()) == cells**2 * side**2, "a pixel is in two patches"


def test_every_place_of_a_grid_occurs_equally_often_and_independently():
    top, left = patches.grid(4000, 2, 10, 3, _generator())
    moved = torch.stack([top - top.new_tensor([0, 0, 10, 10]), left - left.new_tensor([0, 10, 0, 10])]).flatten(2)
    share = torch.stack([(moved == k).float().mean((1,)) for k in range(4)])
    assert (share - 0.25).abs().max() < 0.03
    series = moved.permute(0, 2, 1).reshape(8, -1).double()
    assert (torch.corrcoef(series) - torch.eye(8)).abs().max() < 0.06


def test_a_grid_is_a_function_of_the_generator():
    a, b, c = (patches.grid(3, 3, 21, 5, _generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_standardised_channels_have_mean_0_and_deviation_1_and_flat_ones_are_0():
    x = torch.rand(2, 4, 3, 8, 8, generator=_generator())
    z = patches.standardise(x)
    torch.testing.assert_close(z.mean((-2, -1)), torch.zeros(2, 4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var((-2, -1), unbiased=False), torch.ones(2, 4, 3))
    assert patches.standardise(torch.full((1, 3, 8, 8), 0.7)).abs().max() < 1e-4


def test_standardising_removes_brightness_and_contrast():
    x = torch.rand(1, 1, 3, 8, 8, generator=_generator())
    torch.testing.assert_close(patches.standardise(0.4 * x + 0.3), patches.standardise(x), atol=1e-4, rtol=1e-4)


def test_grey_by_hand():
    red, green, blue = torch.eye(3).view(3, 3, 1, 1)
    for colour, share in ((red, 0.299), (green, 0.587), (blue, 0.114)):
        torch.testing.assert_close(patches.grey(colour), torch.full((3, 1, 1), share))
    white = torch.full((2, 5, 3, 4, 4), 0.6)
    torch.testing.assert_close(patches.grey(white), white)


def test_projection_is_the_published_matrix_and_takes_green_magenta_away():
    published = torch.tensor([[0.8333, 0.3333, -0.1667], [0.3333, 0.3333, 0.3333], [-0.1667, 0.3333, 0.8333]])
    columns = patches.project(torch.eye(3).view(3, 3, 1, 1))[..., 0, 0].T
    torch.testing.assert_close(columns, published, atol=1e-4, rtol=0)
    x = torch.rand(2, 5, 3, 4, 4, generator=_generator())
    along = (patches.project(x) * torch.tensor(patches.GREEN_MAGENTA).view(3, 1, 1)).sum(-3)
    assert along.abs().max() < 1e-6
    torch.testing.assert_close(patches.project(patches.project(x)), patches.project(x))
    torch.testing.assert_close(patches.project(patches.grey(x)), patches.grey(x))


@pytest.mark.parametrize("side", [16, 64])
def test_cutting_a_batch_is_quick(side):
    import time

    images = torch.randint(256, (64, 3, 4 * side, 4 * side), dtype=torch.uint8)
    top, left = patches.grid(64, 3, side + side // 4, side // 4, _generator())
    patches.cut(images, top, left, side)
    began = time.process_time()
    patches.cut(images, top, left, side)
    assert 64 / (time.process_time() - began) > 400
