"""Mean intersection over union of a segmentation: one confusion matrix over the whole set. Numpy and scipy only.

IoU of a class = pixels of it that are found / pixels that are of it or taken for it; pixels marked 255 do not count
(Long et al., CVPR 2015, section 5; VOC's devkit since 2007). A class that is neither there nor ever predicted has no
IoU (NaN) and no part in the mean, as in mmsegmentation's ``IoUMetric``; one that is not there but is predicted has 0.

Evidence is a sparse confusion matrix an image, from which all is recomputed, also under resamples of the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bench.data.annotation import IGNORED

CLASSES = 21
"""VOC's: background and 20."""


def confusion(prediction: NDArray[np.integer], truth: NDArray[np.uint8], classes: int = CLASSES) -> NDArray[np.int64]:
    """The confusion matrix of one image, (classes, classes): rows are the truth, columns the prediction.

    Raises:
        ValueError: prediction and truth (H, W) differ in shape, or have a value that is no class.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"a prediction of shape {prediction.shape} for a mask of shape {truth.shape}")
    counted = truth != IGNORED
    wanted, given = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for values in (wanted, given):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"classes are 0 to {classes - 1}")
    return np.bincount(wanted * classes + given, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Confusions:
    """The confusion matrices of a set of images, what is not zero of them."""

    cells: NDArray[np.uint16]
    """(images,): how many are not zero."""
    cell: NDArray[np.uint16]
    """(n,): truth x classes + prediction; image after image, rising within each."""
    pixels: NDArray[np.uint32]
    """(n,)."""
    classes: int = CLASSES

    @classmethod
    def of(cls, matrices: Iterable[NDArray[np.int64]]) -> Confusions:
        """From one :func:`confusion` an image, in the order of the images.

        Raises:
            ValueError: there are none, or the classes are too many for 16 bits.
        """
        found = [(np.flatnonzero(matrix), matrix.ravel(), len(matrix)) for matrix in matrices]
        if not found or found[0][2] > 255:
            raise ValueError("there is at least one matrix, and at most 255 classes")
        return cls(
            cells=np.array([len(where) for where, _, _ in found], np.uint16),
            cell=np.concatenate([where for where, _, _ in found]).astype(np.uint16),
            pixels=np.concatenate([matrix[where] for where, matrix, _ in found]).astype(np.uint32),
            classes=found[0][2],
        )

    @property
    def images(self) -> int:
        """How many."""
        return len(self.cells)

    def total(self) -> NDArray[np.int64]:
        """(classes, classes): over the set."""
        cells = np.zeros(self.classes**2, np.int64)
        np.add.at(cells, self.cell, self.pixels.astype(np.int64))
        return cells.reshape(self.classes, self.classes)

    def iou(self) -> NDArray[np.float64]:
        """(classes,): from 0 to 1; NaN where a class is neither there nor predicted."""
        return self.resampled(np.ones((1, self.images), np.float32))[0]

    def resampled(self, counts: NDArray[np.float32]) -> NDArray[np.float64]:
        """(r, classes): the same when image i is in the set ``counts[r, i]`` times."""
        starts = np.concatenate([[0], np.cumsum(self.cells, dtype=np.int64)])
        shape = (self.images, self.classes**2)
        table = csr_array((self.pixels.astype(np.float64), self.cell.astype(np.int64), starts), shape=shape)
        total = (table.T @ counts.T.astype(np.float64)).T.reshape(-1, self.classes, self.classes)
        found = np.einsum("rcc->rc", total)
        union = total.sum(axis=1) + total.sum(axis=2) - found
        return np.divide(found, union, out=np.full(found.shape, np.nan), where=union > 0)

    def mean_iou(self, counts: NDArray[np.float32]) -> NDArray[np.float64]:
        """A statistic for :func:`bench.metrics.intervals.bootstrap`: counts (r, N) -> (r,), from 0 to 1."""
        return np.nanmean(self.resampled(counts), axis=1)


def by_setting(evidence: Mapping[str, NDArray[Any]]) -> dict[str, Confusions]:
    """The matrices of every setting, where those of one follow another's: ``cells`` is (settings, images)."""
    ends = np.cumsum(evidence["cells"].sum(1, dtype=np.int64))[:-1]
    cells, pixels = (np.split(evidence[key], ends) for key in ("cell", "pixels"))
    parts = map(Confusions, evidence["cells"], cells, pixels, [len(evidence["classes"])] * len(cells))
    return dict(zip(evidence["settings"].tolist(), parts, strict=True))
