"""Detections as compact evidence: at most 100 an image, 11 bytes each, and the objects.

Values are computed from what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics.average_precision import Detections, Objects

MOST = 100
"""Detections kept of an image, the highest scores."""
_TENTHS = 10
"""Edges are kept in tenths of a pixel, as detectron2's evaluator writes them; up to 6,553.5."""

Arrays = dict[str, NDArray[np.generic]]


def compact(detections: Detections, images: int) -> Arrays:
    """``count`` uint8 (images,), ``label`` uint8, ``score`` float16 and ``box`` uint16 (n, 4), image after image.

    Within an image the highest score comes first.

    Raises:
        ValueError: a box that 16 bits do not hold, or a label that 8 do not.
    """
    if detections.labels.size and not 0 <= detections.labels.min() <= detections.labels.max() <= 255:
        raise ValueError("a label outside 0 to 255")
    order = np.lexsort((-detections.scores, detections.image))
    image = detections.image[order]
    rank = np.arange(len(order)) - np.searchsorted(image, image)
    kept = detections.take(order[rank < MOST])
    box = np.rint(kept.boxes * _TENTHS)
    if box.size and not 0 <= box.min() <= box.max() <= np.iinfo(np.uint16).max:
        raise ValueError("a box outside 0 to 6,553.5 pixels")
    return {
        "count": np.bincount(kept.image, minlength=images).astype(np.uint8),
        "label": kept.labels.astype(np.uint8),
        "score": kept.scores.astype(np.float16),
        "box": box.astype(np.uint16),
    }


def restore(evidence: Mapping[str, NDArray[Any]]) -> Detections:
    """The detections of :func:`compact`, as they were rounded."""
    count = evidence["count"].astype(np.int64)
    return Detections(
        image=np.repeat(np.arange(len(count)), count),
        labels=evidence["label"].astype(np.int64),
        scores=evidence["score"].astype(np.float64),
        boxes=evidence["box"].astype(np.float64) / _TENTHS,
    )


def by_setting(evidence: Mapping[str, NDArray[Any]]) -> dict[str, Detections]:
    """The detections of every setting, where those of one follow another's: ``count`` is (settings, images)."""
    found, end = {}, 0
    for setting, count in zip(evidence["settings"].tolist(), evidence["count"], strict=True):
        start, end = end, end + int(count.sum())
        own = {key: evidence[key][start:end] for key in ("label", "score", "box")}
        found[setting] = restore({"count": count, **own})
    return found


def compact_objects(known: Objects) -> Arrays:
    """``truth_count`` uint16 (images,), ``truth_label`` uint8, ``truth_box`` uint16 (n, 4), ``truth_difficult``."""
    return {
        "truth_count": np.bincount(known.image, minlength=known.images).astype(np.uint16),
        "truth_label": known.labels.astype(np.uint8),
        "truth_box": np.rint(known.boxes * _TENTHS).astype(np.uint16),
        "truth_difficult": known.difficult,
    }


def restore_objects(evidence: Mapping[str, NDArray[Any]]) -> Objects:
    """The objects of :func:`compact_objects`, as they were rounded."""
    count = evidence["truth_count"].astype(np.int64)
    return Objects(
        image=np.repeat(np.arange(len(count)), count),
        labels=evidence["truth_label"].astype(np.int64),
        boxes=evidence["truth_box"].astype(np.float64) / _TENTHS,
        difficult=evidence["truth_difficult"].astype(np.bool_),
        images=len(count),
    )
