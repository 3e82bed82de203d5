"""Detections as compact evidence: at most 100 an image, 11 bytes each. Values are computed from what it holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bench.metrics.average_precision import Detections

MOST = 100
"""Detections kept of an image, the highest scores."""
_TENTHS = 10
"""Edges are kept in tenths of a pixel, as detectron2's evaluator writes them; up to 6,553.5."""

Arrays = dict[str, NDArray[np.generic]]


def compact(detections: Detections, images: int) -> Arrays:
    """``count`` uint8 (images,), ``label`` uint8, ``score`` float16 and ``box`` uint16 (n, 4), image after image.

    Within an image the highest score comes first.

    Raises:
        ValueError: a box that 16 bits do not hold.
    """
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


def restore(evidence: Mapping[str, NDArray[np.generic]]) -> Detections:
    """The detections of :func:`compact`, as they were rounded."""
    count = evidence["count"].astype(np.int64)
    return Detections(
        image=np.repeat(np.arange(len(count)), count),
        labels=evidence["label"].astype(np.int64),
        scores=evidence["score"].astype(np.float64),
        boxes=evidence["box"].astype(np.float64) / _TENTHS,
    )
