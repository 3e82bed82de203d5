"""Counting: tiles and the shrunk image, the count identity, the contrastive term, and the countermeasures."""

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench.backbones.base import build
from bench.data.base import Sample
from bench.data.loader import Loader
from bench.data.resampling import KERNELS
from bench.errors import BenchError
from bench.methods.base import make
from bench.methods.counting import Counting, distances
from bench.training.task import Step


def _task(backbone="alexnet-smoke", **options):
    return make("counting", backbone, options, seed=0)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _only(task, kernel):
    """Every image is shrunk by this filter."""
    task.filters[:] = task.filters[list(KERNELS).index(kernel)].clone()
    return task


def _blocks(counts, side=56):
    """Black images with so many white blocks of 2 x 2, on even pixels and apart: no tile cuts one."""
    images = torch.zeros(len(counts), 1, side, side)
    rng = np.random.default_rng(0)
    for image, count in zip(images, counts, strict=True):
        for place in rng.permutation((side // 4) ** 2)[:count]:
            y, x = divmod(int(place), side // 4)
            image[0, 4 * y : 4 * y + 2, 4 * x : 4 * x + 2] = 1
    return images.expand(-1, 3, -1, -1)


def test_the_four_tiles_are_the_quarters():
    task = _task("alexnet-mini")
    images = torch.rand(3, 3, 56, 56, generator=_generator())
    tiles = task.tiles(images)
    for k, (y, x) in enumerate([(0, 0), (0, 28), (28, 0), (28, 28)]):
        assert torch.equal(tiles[:, k], images[:, :, y : y + 28, x : x + 28])


@pytest.mark.parametrize(("side", "tile"), [(224, 112), (227, 113), (56, 28), (28, 14)])
def test_sizes(side, tile):
    task = Counting(build("alexnet-smoke", input_side=side))
    assert task.tile == tile
    image = torch.zeros(3, 300, 260, dtype=torch.uint8)
    assert task.view(Sample(image, 0, -1), np.random.default_rng(0)).shape == (3, 2 * tile, 2 * tile)


def test_a_linear_network_counts_every_pixel_once():
    """Summed over places, any linear phi has sum_j phi(T_j x) = phi(x) = 4 phi(D x) under the mean of 2 x 2."""
    task = _only(_task("alexnet-mini"), "box")
    phi = torch.randn(10, 3, generator=_generator())
    x = torch.randint(256, (5, 3, 56, 56), generator=_generator()) / 255
    shown = torch.cat([task.shrink(x, _generator())[:, None], task.tiles(x)], 1)
    counts = (shown.sum((3, 4)) @ phi.T) * torch.tensor([4.0, 1, 1, 1, 1]).view(5, 1)
    positive, negative = distances(counts)
    torch.testing.assert_close(positive, torch.zeros(5), atol=1e-3, rtol=0)
    assert negative.min() > 1


def test_a_network_that_counts_blocks_satisfies_the_identity_exactly():
    """relu(pixel - left - upper), summed, counts the blocks, in the image and shrunk by two alike."""
    task = _only(_task("alexnet-mini"), "box")
    x = _blocks([3, 17, 0, 60])
    shown = torch.cat([task.shrink(x, _generator())[:, None], task.tiles(x)], 1)
    filters = torch.tensor([[[[0.0, -1, 0], [-1, 1, 0], [0, 0, 0]]]])
    corners = torch.nn.functional.conv2d(shown[:, :, :1].flatten(0, 1), filters, padding=1).relu()
    counts = corners.sum((1, 2, 3)).view(4, 5, 1)
    assert counts[:, 0, 0].tolist() == [3, 17, 0, 60]
    positive, negative = distances(counts)
    assert positive.tolist() == [0, 0, 0, 0]
    assert negative.tolist() == [(60 - 3) ** 2, (3 - 17) ** 2, 17**2, 60**2]


def test_distances_by_hand():
    counts = torch.tensor([[[4.0, 1], [1, 0], [1, 0], [1, 0], [1, 1]], [[0, 0], [0, 1], [0, 1], [0, 0], [2, 0]]])
    positive, negative = distances(counts)
    assert positive.tolist() == [0, 8]
    assert negative.tolist() == [17, 5]


def test_without_the_contrastive_term_counting_nothing_would_be_perfect(monkeypatch):
    task = _task(margin=10.0)
    monkeypatch.setattr(task, "counts", lambda shown: torch.zeros(*shown.shape[:2], 7))
    with Loader(ToyImages(), task.view, seed=0, batch=16, workers=0) as loader:
        batch = next(iter(loader.epoch(0, torch.arange(96))))
    ((_, loss),) = task.losses(batch, Step(0, 0, 1), _generator())
    assert float(loss.total) == 10
    assert float(loss.metrics["accuracy"]) == 0, "no distance is smaller than an equal one"


@pytest.mark.parametrize("backbone", ["alexnet-smoke", "alexnet-mini"])
@pytest.mark.parametrize("margin", [1.0, 10.0])
def test_distances_start_near_the_margin_at_any_width(backbone, margin):
    task = _task(backbone, margin=margin)
    with Loader(ToyImages(side=64), task.view, seed=0, batch=16, workers=0) as loader:
        batch = next(iter(loader.epoch(0, torch.arange(96))))
    with torch.no_grad():
        positive, negative = distances(task.counts(task.inputs(batch.views, _generator())))
    for distance in (positive.mean(), negative.mean()):
        assert 0.3 * margin < distance < 1.5 * margin


@pytest.mark.parametrize(("margin", "alive"), [(1e-6, False), (10.0, True)])
def test_the_contrastive_term_keeps_the_counts_from_vanishing(margin, alive):
    task = _task(margin=margin)
    optimiser = torch.optim.Adam(task.parameters(), lr=3e-3)
    with Loader(ToyImages(), task.view, seed=0, batch=32, workers=0) as loader:
        batch = next(iter(loader.epoch(0, torch.arange(96))))
    for update in range(80):
        ((_, loss),) = task.losses(batch, Step(0, update, 80), _generator(update))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    counts = task.counts(task.inputs(batch.views, _generator()))
    assert (counts >= 0).all()
    assert (distances(counts)[1].mean() > 1) == alive


def test_images_are_shrunk_by_different_filters_each_as_pillow_does():
    from PIL import Image

    task = _task("alexnet-mini")
    image = np.random.default_rng(0).random((56, 56), dtype=np.float32)
    shrunk = task.shrink(torch.from_numpy(image).expand(40, 3, 56, 56), _generator())[:, 0]
    kinds = [getattr(Image.Resampling, k.upper()) for k in KERNELS]
    wanted = torch.stack([torch.from_numpy(np.array(Image.fromarray(image).resize((28, 28), k))) for k in kinds])
    error = (shrunk[:, None] - wanted.clamp(0, 1)).abs().amax((2, 3))
    assert error.min(1).values.max() < 1e-5
    assert set(error.argmin(1).tolist()) == set(range(len(KERNELS)))


def test_without_aberration_nothing_is_grey():
    images = torch.randint(256, (40, 3, 28, 28), dtype=torch.uint8, generator=_generator())
    task = _task(chromatic="none")
    torch.testing.assert_close(task.inputs(images, _generator())[:, 1:], task.tiles(images / 255))


@pytest.mark.parametrize("method", ["counting", "jigsaw"])
def test_an_unknown_remedy_against_aberration_is_refused(method):
    with pytest.raises(BenchError, match="chromatic"):
        make(method, "alexnet-smoke", {"chromatic": "project"}, seed=0)


def test_two_thirds_are_grey_each_input_on_its_own():
    task = _task()
    images = torch.randint(256, (400, 3, 28, 28), dtype=torch.uint8, generator=_generator())
    shown = task.inputs(images, _generator())
    is_grey = (shown - shown.mean(2, keepdim=True)).abs().flatten(2).amax(2) < 1e-5
    assert (is_grey.float().mean(0) - 0.67).abs().max() < 0.08
    assert 0.3 < is_grey.all(1).float().mean() / 0.67**5 < 2
    assert (torch.corrcoef(is_grey.T.double()) - torch.eye(5)).abs().max() < 0.2


def test_the_picture_shows_each_image_and_its_nearest():
    from bench.data.batch import Batch

    task = _task().eval()
    images = torch.randint(256, (6, 3, 28, 28), dtype=torch.uint8, generator=_generator())
    with torch.no_grad():
        picture = task.picture(Batch(images, torch.arange(6), torch.zeros(6)), _generator())
    assert torch.equal(picture[:, 0], images)
    assert all(any(torch.equal(cell, image) for image in images) for row in picture for cell in row)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf"), "10"])
def test_a_margin_of_nothing_is_refused(margin):
    with pytest.raises(BenchError, match="margin"):
        _task(margin=margin)
