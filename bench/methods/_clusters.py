"""Whitening and k-means over rows that are too many to hold in float32: they stay float16 on the CPU.

What is computed goes through the device in chunks, so beside the rows it needs the memory of a few constants. The same
rows and generator give the same clusters (on the same device).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 2**24
"""Distances (or features) that a chunk has on the device: 64 MB."""
NULL = 1e-5
"""Directions whose variance is below this share of the largest are noise, and left out of whitened rows."""
PUSH = 1 / 1024
"""By which share the two halves of a split cluster are pushed apart (faiss)."""


def whitening(rows: Tensor, dims: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the map (D, dims) that whitens rows (M, D) along their first principal components.

    ``(x - mean) @ map`` has variance 1 in every direction; columns of directions without variance are 0.
    """
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    for chunk in _chunks(rows, rows.shape[1], device):
        total += chunk.sum(0, dtype=torch.float64)
    mean = (total / len(rows)).float()
    scatter = torch.zeros(len(mean), len(mean), device=device)
    for chunk in _chunks(rows, rows.shape[1], device):
        chunk -= mean
        scatter.addmm_(chunk.T, chunk)
    variance, direction = torch.linalg.eigh(scatter / len(rows))
    variance, direction = variance.flip(0)[:dims], direction.flip(1)[:, :dims]
    kept = variance > NULL * variance[0].clamp(min=1e-12)
    return mean, direction * torch.where(kept, variance.clamp(min=1e-30).rsqrt(), 0)


def whitened(rows: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    """Rows (B, D) through a map of :func:`whitening`, then to unit length: float32 (B, dims)."""
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize((rows.float() - mean) @ matrix, dim=1)


def kmeans(rows: Tensor, clusters: int, device: torch.device, iterations: int = 20) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm on rows (N, D), from ``clusters`` <= N random ones: centroids (K, D); int32 (N,), the nearest.

    As faiss does it: 20 iterations over all rows, then the assignment. A cluster left empty takes half of another: the
    centroid of one with many rows is copied, and the two are pushed apart (faiss draws which, here the largest are
    taken). Randomness comes from torch's global generator of the CPU.
    """
    first = torch.randperm(len(rows))[:clusters]
    centroids = rows[first].to(device).float()
    for _ in range(iterations):
        sums, counts = torch.zeros_like(centroids), torch.zeros(clusters, dtype=torch.int64, device=device)
        for chunk in _chunks(rows, clusters, device):
            label = nearest(chunk, centroids)
            sums.index_add_(0, label, chunk)
            counts += label.bincount(minlength=clusters)
        centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        _split(centroids, counts)
    labels = [nearest(chunk, centroids).int().cpu() for chunk in _chunks(rows, clusters, device)]
    return centroids, torch.cat(labels)


def nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """int64 (B,): the centroid (K, D) at the smallest distance of each row (B, D)."""
    return torch.addmm(centroids.square().sum(1), rows, centroids.T, alpha=-2).argmin(1)


def _split(centroids: Tensor, counts: Tensor) -> None:
    """Give every empty cluster half of one of the largest, as long as those have two rows; in place."""
    empty = (counts == 0).nonzero()[:, 0]
    largest = counts.argsort(descending=True, stable=True)[: len(empty)]
    largest = largest[counts[largest] > 1]
    push = torch.full((centroids.shape[1],), PUSH, device=centroids.device)
    push[1::2] *= -1
    centroids[empty[: len(largest)]] = centroids[largest] * (1 + push)
    centroids[largest] *= 1 - push


def _chunks(rows: Tensor, cells: int, device: torch.device) -> Iterator[Tensor]:
    """The rows, copied as float32 to the device, as many at once as make :data:`CELLS` at ``cells`` each."""
    for chunk in rows.split(max(1, CELLS // max(cells, rows.shape[1]))):
        yield chunk.to(device, torch.float32, copy=True)
