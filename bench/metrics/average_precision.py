"""Average precision on PASCAL VOC, of detections and of multi-label classification. Numpy and scipy only.

What is ranked is matched to the truth once. Precision then changes only at hits, so each class keeps its hits in order
and, between each two, how many misses which image has. The AP of a resample of the images is then a cumulative sum
with a weight for each image, and a bootstrap of 2,000 resamples takes seconds.

Detections follow the devkit's ``VOCevaldet`` (Everingham et al., IJCV 2010, section 4.2) as detectron2's
``PascalVOCDetectionEvaluator`` has it: from the highest score down, a detection goes to the object of its class in its
image that it overlaps most; above the threshold it is a hit, or a miss where the object was hit before; difficult
objects and what goes to them do not count. Boxes are edges in pixels (:class:`bench.data.annotation.Annotation`), where
VOC counts pixels and adds 1 to each side: the overlap is the same. A class without an object has no AP (NaN) and no
part in the mean; detectron2 counts it as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from bench.errors import did_you_mean

if TYPE_CHECKING:
    from bench.data.annotation import Annotation

KINDS = ("11-point", "area")
"""Of detections and of images. ``11-point``: the mean over recalls 0, 0.1, ..., 1 of the best precision at that recall
or more (VOC 2007). ``area``: the area under that best precision (VOC since 2010)."""

IMAGE_KINDS = (*KINDS, "step")
"""Of images. ``step``: the area under the precision itself, equal scores taken together, as scikit-learn's
``average_precision_score``."""

COCO_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""Of the overlaps that "AP" without a number averages over."""

_RECALLS = np.arange(0.0, 1.1, 0.1)
"""Written as in voc_eval: 0.3, 0.6 and 0.7 come out a little larger, and an exact recall does not reach them."""
_TIE_BREAK = 1e-5


class Detections(NamedTuple):
    """Of all images; where scores are equal, the first comes first."""

    image: NDArray[np.int64]
    """(n,): position of the image in the data set."""
    labels: NDArray[np.int64]
    """(n,): class indices."""
    scores: NDArray[np.float64]
    """(n,)."""
    boxes: NDArray[np.float64]
    """(n, 4): x1, y1, x2, y2 of the edges in pixels, from 0."""

    def take(self, where: NDArray[np.integer]) -> Detections:
        """Those at these positions, in that order."""
        return Detections(self.image[where], self.labels[where], self.scores[where], self.boxes[where])


class Objects(NamedTuple):
    """The true objects of all images."""

    image: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    images: int
    """How many images there are, with and without objects."""


def objects(annotations: Sequence[Annotation]) -> Objects:
    """The objects of a data set."""
    return Objects(
        image=np.repeat(np.arange(len(annotations)), [len(known.labels) for known in annotations]),
        labels=np.concatenate([known.labels for known in annotations]),
        boxes=np.concatenate([known.boxes for known in annotations]).astype(np.float64),
        difficult=np.concatenate([known.difficult for known in annotations]),
        images=len(annotations),
    )


@dataclass(frozen=True)
class Ranked:
    """What is ranked, matched to the truth: one :class:`_Class` for each class."""

    classes: tuple[_Class, ...]
    images: int
    kinds: tuple[str, ...]
    """Which kinds of AP it has."""

    def ap(self, kind: str) -> NDArray[np.float64]:
        """(classes,): from 0 to 1, NaN where a class has no true object.

        Raises:
            BenchError: no such kind.
        """
        return self.resampled(kind, np.ones((1, self.images), np.float32))[0]

    def resampled(self, kind: str, counts: NDArray[np.float32]) -> NDArray[np.float64]:
        """(r, classes): the same when image i is in the test set ``counts[r, i]`` times."""
        if kind not in self.kinds:
            raise did_you_mean("kind of AP", kind, list(self.kinds))
        weights = np.ascontiguousarray(counts.T, dtype=np.float32)
        return np.stack([each.ap(kind, weights) for each in self.classes], axis=1)


def rank_detections(detections: Detections, truth: Objects, classes: int, threshold: float = 0.5) -> Ranked:
    """Match detections to objects: a hit overlaps its object by more than ``threshold`` (intersection over union)."""
    return rank_detections_at(detections, truth, classes, (threshold,))[0]


def rank_detections_at(
    detections: Detections, truth: Objects, classes: int, thresholds: Sequence[float] = COCO_THRESHOLDS
) -> list[Ranked]:
    """The same at several thresholds; overlaps are computed once.

    Raises:
        ValueError: a label or an image that is none, or a score that is not finite.
    """
    _check(detections, truth, classes)
    order = np.lexsort((-detections.scores, detections.labels))  # stable: equal scores stay in the order given
    ranked = detections.take(order)
    overlap, nearest = _nearest(ranked, truth, classes)
    counted = truth.difficult[nearest] if len(truth.image) else np.zeros(len(order), np.bool_)
    bounds = np.searchsorted(ranked.labels, np.arange(classes + 1))
    positives = _positives(truth, classes)
    found = []
    for threshold in thresholds:
        near = overlap > threshold
        outcome = np.where(near, np.where(counted, _IGNORED, _HIT), _MISS)
        claims = np.flatnonzero(outcome == _HIT)
        first = np.zeros(len(order), np.bool_)
        first[claims[np.unique(nearest[claims], return_index=True)[1]]] = True
        outcome[(outcome == _HIT) & ~first] = _MISS
        spans = [slice(*bounds[label : label + 2]) for label in range(classes)]
        found.append(
            Ranked(
                tuple(
                    _Class.of(ranked.image[span], outcome[span], ranked.scores[span], positive)
                    for span, positive in zip(spans, positives, strict=True)
                ),
                truth.images,
                KINDS,
            )
        )
    return found


def rank_images(scores: ArrayLike, present: NDArray[np.int8], *, tie_break: bool = False) -> Ranked:
    """Rank images by their scores (N, classes) for each class.

    ``present`` (N, classes) is 1, 0, or -1 where the image does not count for the class
    (:func:`bench.data.annotation.presence`). Between equal scores the true images come last. With ``tie_break`` the
    true ones also lose against all within 1e-5, as in Krähenbühl et al.'s evaluation (ICLR 2016, its ``train_cls.py``).

    Raises:
        ValueError: shapes differ, or a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape != present.shape or not np.isfinite(values).all():
        raise ValueError("scores are finite numbers, one for each image and class")
    if tie_break:
        values = values - _TIE_BREAK * (present == 1)
    classes = tuple(_rank_class(*pair) for pair in zip(values.T, present.T, strict=True))
    return Ranked(classes, len(values), IMAGE_KINDS)


def mean_ap(ranked: Sequence[Ranked], kind: str) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """A statistic for :func:`bench.metrics.intervals.bootstrap`: counts (r, N) -> (r,), from 0 to 1.

    The mean over the classes that have an AP and over ``ranked``, such as one a threshold.
    """

    def statistic(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        per_class = np.mean([each.resampled(kind, counts) for each in ranked], axis=0)
        there = ~np.isnan(per_class)
        return np.where(there, per_class, 0).sum(axis=1) / np.maximum(1, there.sum(axis=1))

    return statistic


_HIT, _MISS, _IGNORED = 1, 0, -1


@dataclass(frozen=True)
class _Class:
    """The ranking of one class, as far as its AP needs it."""

    hits: NDArray[np.int64]
    """(n,): the image of each hit, from the highest score down."""
    misses: csr_array
    """(n, images): the misses between each hit and the one before it; those after the last hit play no part."""
    tied: NDArray[np.int64]
    """(n,): the last hit with the same score."""
    positives: NDArray[np.float32]
    """(images,): how many there are to be hit."""

    @classmethod
    def of(
        cls, image: NDArray[np.int64], outcome: NDArray[np.int64], scores: NDArray[np.float64],
        positives: NDArray[np.float32],
    ) -> _Class:  # fmt: skip
        """From what is ranked, the highest score first."""
        hits = np.flatnonzero(outcome == _HIT)
        misses = np.flatnonzero(outcome == _MISS)
        rows = np.searchsorted(hits, misses)
        used = rows < len(hits)
        cells = (rows[used], image[misses[used]])
        table = csr_array((np.ones(len(cells[0]), np.float32), cells), shape=(len(hits), len(positives)))
        tied = np.searchsorted(-scores[hits], -scores[hits], side="right") - 1
        return cls(image[hits], table, tied, positives)

    def ap(self, kind: str, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """(r,) for weights (images, r). Counts are exact in float32: no class has 16 million of anything."""
        wanted = self.positives @ weights
        if not len(self.hits):
            return np.where(wanted > 0, 0.0, np.nan)
        gained = weights[self.hits]
        hit = np.cumsum(gained, axis=0)
        ranked = np.cumsum(self.misses @ weights, axis=0) + hit
        precision = np.divide(hit, ranked, out=np.zeros(hit.shape), where=ranked > 0, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind == "step":
                found = np.einsum("nr,nr->r", gained, precision[self.tied]) / wanted
            else:
                best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
                if kind == "area":
                    found = np.einsum("nr,nr->r", gained, best) / wanted
                else:
                    found = _eleven_points(hit, best, wanted)
        return np.where(wanted > 0, found, np.nan)


def _eleven_points(
    hit: NDArray[np.float32], best: NDArray[np.float64], wanted: NDArray[np.float32]
) -> NDArray[np.float64]:
    recall = hit / wanted.astype(np.float64)
    padded = np.concatenate([best, np.zeros((1, best.shape[1]))])
    column, total = np.arange(best.shape[1]), np.zeros(best.shape[1])
    for threshold in _RECALLS:
        total += padded[(recall < threshold).sum(axis=0), column]
    return total / len(_RECALLS)


def _rank_class(scores: NDArray[np.float64], present: NDArray[np.int8]) -> _Class:
    image = np.flatnonzero(present >= 0)
    order = np.lexsort((present[image], -scores[image]))
    ranked = image[order]
    outcome = np.where(present[ranked] == 1, _HIT, _MISS)
    return _Class.of(ranked, outcome, scores[ranked], (present == 1).astype(np.float32))


def _nearest(detections: Detections, truth: Objects, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of each detection, the largest overlap with an object of its class and image, and which that is.

    Where there is none: -1 and 0.
    """
    key, wanted = truth.image * classes + truth.labels, detections.image * classes + detections.labels
    order = np.argsort(key, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(key, minlength=truth.images * classes))])
    low, high = bounds[wanted], bounds[wanted + 1]
    overlap, nearest = np.full(len(wanted), -1.0), np.zeros(len(wanted), np.int64)
    some = np.flatnonzero(high > low)
    if not len(some):
        return overlap, nearest
    lengths = (high - low)[some]
    starts = np.cumsum(lengths) - lengths
    candidate = order[np.arange(lengths.sum()) + np.repeat(low[some] - starts, lengths)]
    pairs = overlaps(detections.boxes[np.repeat(some, lengths)], truth.boxes[candidate])
    overlap[some] = np.maximum.reduceat(pairs, starts)
    at_best = np.flatnonzero(pairs == np.repeat(overlap[some], lengths))
    nearest[some] = candidate[at_best[np.searchsorted(at_best, starts)]]
    return overlap, nearest


def overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), broadcast."""
    width, height = (
        np.maximum(0, np.minimum(a[..., i + 2], b[..., i + 2]) - np.maximum(a[..., i], b[..., i])) for i in (0, 1)
    )
    both = width * height
    area_a, area_b = ((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b))
    return both / (area_a + area_b - both)


def _positives(truth: Objects, classes: int) -> NDArray[np.float32]:
    """(classes, images): objects that are not difficult."""
    easy = ~truth.difficult
    cells = truth.labels[easy] * truth.images + truth.image[easy]
    return np.bincount(cells, minlength=classes * truth.images).reshape(classes, truth.images).astype(np.float32)


def _check(detections: Detections, truth: Objects, classes: int) -> None:
    for what, values, below in (
        ("image", detections.image, truth.images), ("label", detections.labels, classes),
        ("image", truth.image, truth.images), ("label", truth.labels, classes),
    ):  # fmt: skip
        if len(values) and not 0 <= values.min() <= values.max() < below:
            raise ValueError(f"{what}s are 0 to {below - 1}")
    if not (np.isfinite(detections.scores).all() and np.isfinite(detections.boxes).all()):
        raise ValueError("scores and boxes are finite numbers")
