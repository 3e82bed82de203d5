"""How many objects the proposals reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.metrics.average_precision import overlaps

if TYPE_CHECKING:
    from bench.data.annotation import Annotation


def recall(
    proposals: Iterable[NDArray[np.floating]], annotations: Sequence[Annotation], threshold: float = 0.5
) -> float:
    """The share, from 0 to 1, of objects that some proposal overlaps by ``threshold`` or more; difficult ones left out.

    NaN where there is no object.
    """
    found = [
        _best(known.boxes[~known.difficult], boxes) >= threshold
        for boxes, known in zip(proposals, annotations, strict=True)
    ]
    reached = np.concatenate([np.zeros(0, np.bool_), *found])
    return float(reached.mean()) if len(reached) else float("nan")


def _best(objects: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,): the largest overlap of each object with a proposal."""
    pairs = overlaps(objects[:, None].astype(np.float64), boxes[None].astype(np.float64))
    return pairs.max(axis=1, initial=0)
