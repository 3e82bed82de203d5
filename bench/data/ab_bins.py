"""The 313 colour bins of Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, section 2.1 and figure 3.

The plane of Lab's a and b is cut by a grid of step 10, and a bin is a grid point within sRGB's gamut. Which points
count as within is not written down; this rule gives the authors' 313, point by point: those less than one step, in
a and in b, from the convex hull of the gamut's projection.

A colour is encoded as its nearest bins, weighted by a Gaussian of their distance. Looking them up takes one row of a
table with a cell a unit of a and b (about what 8-bit images resolve). The nearest bin is exact for every sRGB colour;
the others, and all weights, are those of the cell's centre.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from bench.data.colour import rgb_to_lab

STEP = 10
"""Of the grid."""
SIGMA = 5.0
"""Of the Gaussian that weights the neighbours."""
TEMPERATURE = 0.38
"""Of the annealed mean: 1 gives the mean colour, 0 the likeliest (equation 5)."""
REACH = 110
"""The table covers a and b in [-REACH, REACH], and so all of sRGB."""


class AbBins(nn.Module):
    """Encodes colours as bins, and decodes distributions over bins as colours, batched, on the module's device.

    Args:
        neighbours: bins of a soft code: 10 in the released code, 5 in the paper.

    Buffers: ``centres``, float (313, 2), sorted by a, then b. None is in the state dict: they are constants.
    """

    centres: Tensor
    indices: Tensor
    weights: Tensor

    def __init__(self, neighbours: int = 10) -> None:
        super().__init__()
        centres = torch.tensor(in_gamut(), dtype=torch.float32)
        indices, weights = _table(neighbours)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("indices", indices, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def __len__(self) -> int:
        return len(self.centres)

    def nearest(self, ab: Tensor) -> Tensor:
        """ab (B, 2, h, w) -> the nearest bin, int64 (B, h, w)."""
        return self.indices[:, 0][_cell(ab)]

    def encode(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """ab (B, 2, h, w) -> the nearest bins, int64 (B, K, h, w), nearest first, and their weights, which sum to 1."""
        cell = _cell(ab)
        return _rows(self.indices, cell), _rows(self.weights, cell)

    def cross_entropy(self, logits: Tensor, code: tuple[Tensor, Tensor]) -> Tensor:
        """Of logits (B, 313, h, w) against a soft code: (B, h, w)."""
        indices, weights = code
        logits = logits.float()
        return logits.logsumexp(1) - (logits.gather(1, indices) * weights).sum(1)

    def histogram(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the pixels of ab (B, 2, h, w): of the nearest bin, and of the soft code; float64 (313,) each."""
        indices, weights = self.encode(ab)
        hard = torch.bincount(indices[:, 0].flatten(), minlength=len(self)).double()
        return hard, torch.bincount(indices.flatten(), weights.double().flatten(), minlength=len(self))

    def decode(self, logits: Tensor, temperature: float = TEMPERATURE) -> Tensor:
        """Logits (B, 313, h, w) -> the annealed mean of their softmax, ab (B, 2, h, w)."""
        return torch.einsum("bqhw,qc->bchw", (logits.float() / temperature).softmax(1), self.centres)


@cache
def in_gamut() -> tuple[tuple[int, int], ...]:
    """The bins (a, b), sorted: grid points less than a step away from the hull of the gamut."""
    grown = (_gamut()[:, None] + STEP * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])).reshape(-1, 2)
    hull = ConvexHull(grown).equations
    axis = range(-200, 201, STEP)
    points = np.array([(a, b) for a in axis for b in axis])
    inside = (points @ hull[:, :2].T + hull[:, 2] < 0).all(1)
    return tuple((int(a), int(b)) for a, b in points[inside])


def _gamut() -> np.ndarray:
    """a and b of the most vivid colours of sRGB, (N, 2): one channel at its largest, 8 bits each."""
    levels = torch.arange(256) / 255
    u, v = torch.meshgrid(levels, levels, indexing="ij")
    one = torch.ones_like(u)
    faces = torch.stack([torch.stack(face) for face in ((one, u, v), (u, one, v), (u, v, one))])
    return rgb_to_lab(faces)[:, 1:].movedim(1, -1).reshape(-1, 2).double().numpy()


def _cell(ab: Tensor) -> Tensor:
    """ab (B, 2, h, w) -> rows of the table, int64 (B, h, w)."""
    a, b = (ab.floor().long() + REACH).clamp(0, 2 * REACH - 1).unbind(1)
    return a * (2 * REACH) + b


def _rows(table: Tensor, cell: Tensor) -> Tensor:
    """The rows (cells, K) of so many cells (B, h, w): (B, K, h, w). Faster than indexing with all of ``cell``."""
    return table.index_select(0, cell.flatten()).view(*cell.shape, table.shape[1]).movedim(-1, 1)


@cache
def _table(neighbours: int) -> tuple[Tensor, Tensor]:
    """For each cell, the nearest bins of its centre, int64 (cells, K), and their weights, float32."""
    axis = torch.arange(-REACH, REACH) + 0.5
    cells = torch.cartesian_prod(axis, axis).double()
    distance, indices = torch.cdist(cells, torch.tensor(in_gamut()).double()).topk(neighbours, largest=False)
    return indices, (distance.square() / (-2 * SIGMA**2)).softmax(1).float()
