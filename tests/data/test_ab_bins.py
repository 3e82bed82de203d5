import math

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial import ConvexHull
from sklearn.neighbors import NearestNeighbors

from bench.data import ab_bins
from bench.data.ab_bins import AbBins
from bench.data.colour import rgb_to_lab

RELEASED = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip
"""For each a, the least and the largest b of the authors' bins (pts_in_hull)."""


@pytest.fixture(scope="module")
def bins():
    return AbBins()


@pytest.fixture(scope="module")
def colours():
    """a and b of 20,000 random sRGB colours and of the cube's corners."""
    rgb = torch.rand(1, 3, 100, 200, generator=torch.Generator().manual_seed(0))
    rgb[0, :, 0, :8] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).T
    return rgb_to_lab(rgb)[:, 1:]


def pairs(ab):
    return ab.movedim(1, -1).reshape(-1, 2)


def dense(bins, ab):
    indices, weights = bins.encode(ab)
    return torch.zeros(len(ab), len(bins), *ab.shape[2:]).scatter(1, indices, weights)


def searched(ab, neighbours=10):
    """The soft code by search, as released: (N, 313)."""
    centres = AbBins().centres
    distances, indices = NearestNeighbors(n_neighbors=neighbours).fit(centres).kneighbors(pairs(ab))
    weights = torch.tensor(-(distances**2) / 50).softmax(1).float()
    return torch.zeros(len(weights), 313).scatter(1, torch.tensor(indices), weights)


def test_the_bins_are_the_authors():
    expected = [(a, b) for a, (low, high) in RELEASED.items() for b in range(low, high + 1, 10)]
    assert len(expected) == 313
    assert list(ab_bins.in_gamut()) == expected


def test_the_rule_does_not_hang_on_the_last_digit(monkeypatch):
    bins = ab_bins.in_gamut()
    gamut = ab_bins._gamut()
    for scale in (0.998, 1.0005):
        monkeypatch.setattr(ab_bins, "_gamut", lambda scale=scale: gamut * scale)
        assert ab_bins.in_gamut.__wrapped__() == bins


def test_the_most_vivid_colours_enclose_all(colours):
    hull = ConvexHull(ab_bins._gamut()).equations
    assert (pairs(colours).numpy() @ hull[:, :2].T + hull[:, 2]).max() < 1e-3


def test_the_nearest_bin_is_exact(bins, colours):
    distance = torch.cdist(pairs(colours).double(), bins.centres.double())
    found = distance.gather(1, bins.nearest(colours).view(-1, 1))[:, 0]
    torch.testing.assert_close(found, distance.amin(1), atol=1e-4, rtol=0)
    assert found.max() < 10


def test_a_soft_code_by_hand(bins):
    indices, weights = bins.encode(torch.tensor([0.5, 0.5]).view(1, 2, 1, 1))
    code = {tuple(bins.centres[i].int().tolist()): w for i, w in zip(indices.flatten(), weights.flatten(), strict=True)}
    assert next(iter(code)) == (0, 0)
    assert len(code) == 10
    near, side, corner = (code[at].item() for at in ((0, 0), (10, 0), (10, 10)))
    assert side / near == pytest.approx(math.exp(-(9.5**2 - 0.5**2) / 50), rel=1e-5)
    assert corner / near == pytest.approx(math.exp(-2 * (9.5**2 - 0.5**2) / 50), rel=1e-5)
    assert code[(0, 10)] == code[(10, 0)]


@pytest.mark.parametrize("neighbours", [5, 10])
def test_soft_codes_are_those_of_a_search(neighbours, colours):
    bins = AbBins(neighbours)
    code = pairs_of_code(dense(bins, colours))
    assert code.sum(1).sub(1).abs().max() < 1e-5
    assert (code > 0).sum(1).eq(neighbours).all()
    middles = searched(colours.floor() + 0.5, neighbours)
    torch.testing.assert_close(code.sort(1).values, middles.sort(1).values)
    # two bins at one distance compete for the last place, and either may have it
    assert ((code - middles).abs() > 1e-4).sum(1).max() <= 2
    assert ((code - searched(colours, neighbours)).abs().sum(1) / 2).max() < 0.1


def pairs_of_code(code):
    return code.movedim(1, -1).reshape(-1, code.shape[1])


def test_a_code_decodes_to_its_colour(bins, colours):
    back = pairs_of_code(dense(bins, colours)) @ bins.centres
    assert (back - pairs(colours)).norm(dim=1).mean() < 0.6


def test_annealed_mean(bins):
    logits = torch.full((1, 313, 1, 2), -50.0)
    logits[0, 7] = 0
    logits[0, 200, 0, 1] = math.log(0.5)
    even, cold, warm = (bins.decode(logits, t)[0, :, 0] for t in (0.38, 0.01, 1.0))
    assert torch.allclose(even[:, 0], bins.centres[7])
    assert torch.allclose(cold[:, 1], bins.centres[7], atol=1e-3)
    assert torch.allclose(warm[:, 1], (2 * bins.centres[7] + bins.centres[200]) / 3, atol=1e-3)
    share = 1 / (1 + 0.5 ** (1 / 0.38))
    assert torch.allclose(even[:, 1], share * bins.centres[7] + (1 - share) * bins.centres[200], atol=1e-3)


def test_cross_entropy_is_that_of_the_dense_code(bins, colours):
    ab = colours[:, :, :4, :5].contiguous()
    logits = torch.randn(1, 313, 4, 5, generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(logits, dense(bins, ab), reduction="none")
    torch.testing.assert_close(bins.cross_entropy(logits, bins.encode(ab)), expected)


def test_histograms_count_every_pixel(bins, colours):
    hard, soft = bins.histogram(colours)
    assert hard.sum() == 20000
    assert soft.sum().item() == pytest.approx(20000)
    torch.testing.assert_close(soft, dense(bins, colours).double().sum((0, 2, 3)))


def test_impossible_colours_get_a_bin_too(bins):
    far = torch.tensor([[500.0, -500.0], [-500.0, 500.0]]).view(1, 2, 2, 1)
    assert bins.nearest(far).min() >= 0
    assert bins.nearest(far).max() < 313


def test_constants_are_not_in_checkpoints(bins):
    assert not bins.state_dict()
