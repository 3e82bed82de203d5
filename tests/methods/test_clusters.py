"""Whitening and k-means by hand, against scikit-learn, and within their memory."""

import numpy as np
import torch
from allocations import peak_bytes
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from bench.methods import _clusters
from bench.methods._clusters import _split, kmeans, nearest, whitening

CPU = torch.device("cpu")


def _rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_whitened_rows_have_unit_covariance(monkeypatch):
    monkeypatch.setattr(_clusters, "CELLS", 3000)  # many chunks
    rows = (_rows(2000, 6) @ _rows(6, 6, seed=1) + 5).half()
    mean, matrix = whitening(rows, 4, CPU)
    white = (rows.float() - mean) @ matrix
    torch.testing.assert_close(white.mean(0), torch.zeros(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(white.T @ white / 2000, torch.eye(4), atol=1e-2, rtol=0)
    total = np.linalg.eigvalsh(np.cov(rows.double().numpy().T, bias=True))[::-1]
    kept = matrix.norm(dim=0) ** -2
    np.testing.assert_allclose(kept.numpy(), total[:4], rtol=1e-2)


def test_directions_without_variance_are_dropped():
    rows = torch.cat([_rows(500, 2), torch.ones(500, 3)], 1).half()
    _, matrix = whitening(rows, 4, CPU)
    assert (matrix.norm(dim=0) > 0).tolist() == [True, True, False, False]
    assert not whitening(torch.ones(10, 3).half(), 2, CPU)[1].any()


def test_kmeans_finds_blobs_and_is_as_good_as_sklearns():
    points, truth = make_blobs(3000, centers=12, n_features=8, cluster_std=2.5, random_state=0)
    rows = torch.from_numpy(points).half()
    torch.manual_seed(0)
    centroids, label = kmeans(rows, 12, CPU)
    inertia = float((rows.float() - centroids[label.long()]).square().sum())
    theirs = [KMeans(12, init="random", n_init=1, random_state=s).fit(rows.float().numpy()).inertia_ for s in range(5)]
    assert inertia < 1.05 * max(theirs)
    assert adjusted_rand_score(truth, label.numpy()) > 0.5
    assert label.dtype == torch.int32
    assert torch.equal(label.long(), torch.cdist(rows.float(), centroids).argmin(1))


def test_kmeans_is_a_function_of_the_seed_whatever_the_chunks(monkeypatch):
    rows = _rows(500, 4).half()

    def run(seed):
        torch.manual_seed(seed)
        return kmeans(rows, 10, CPU)[1]

    whole = run(0)
    assert torch.equal(whole, run(0))
    assert not torch.equal(whole, run(1))
    monkeypatch.setattr(_clusters, "CELLS", 1000)
    assert (whole == run(0)).float().mean() > 0.95  # sums in another order


def test_no_cluster_stays_empty():
    rows = torch.cat([torch.zeros(400, 3), _rows(100, 3) + 9]).half()  # most first centroids coincide
    torch.manual_seed(0)
    _, label = kmeans(rows, 30, CPU)
    empty = (label.bincount(minlength=30) == 0).sum()
    torch.manual_seed(0)
    first = rows[torch.randperm(500)[:30]].float()
    assert empty < (nearest(rows.float(), first).bincount(minlength=30) == 0).sum() / 2


def test_an_empty_cluster_takes_half_of_the_largest():
    centroids = torch.tensor([[1.0, 1.0], [9.0, 9.0], [5.0, 5.0], [7.0, 7.0]])
    _split(centroids, torch.tensor([3, 0, 10, 0]))
    up, down = 1 + _clusters.PUSH, 1 - _clusters.PUSH
    expected = [[down, up], [5 * up, 5 * down], [5 * down, 5 * up], [up, down]]
    torch.testing.assert_close(centroids, torch.tensor(expected))
    alone = torch.tensor([[1.0, 1.0], [9.0, 9.0]])
    _split(alone, torch.tensor([1, 0]))
    assert torch.equal(alone, torch.tensor([[1.0, 1.0], [9.0, 9.0]]))


def test_memory_beside_the_rows_is_sixteen_bytes_a_row(monkeypatch):
    monkeypatch.setattr(_clusters, "CELLS", 2**14)

    def beside(count):
        rows = torch.randn(count, 256).half()
        return peak_bytes(lambda: kmeans(rows, 8, CPU, iterations=2))

    small, large = beside(4000), beside(12000)
    assert (large - small) / 8000 <= 16
