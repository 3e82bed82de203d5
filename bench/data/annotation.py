"""What is known of an image beside one label: boxes with classes, and a class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.data.base import Dataset

IGNORED = 255
"""The value of a mask's pixels that do not count."""

if TYPE_CHECKING:
    Mask = NDArray[np.uint8]


class Annotation(NamedTuple):
    """The objects of one image."""

    boxes: NDArray[np.float32]
    """(n, 4): x1, y1, x2, y2 of the edges in pixels, from 0; a box of one pixel has x2 - x1 = 1. VOC's own numbers
    (xmin, ymin, xmax, ymax), which count pixels from 1 and include the last, are (x1 + 1, y1 + 1, x2, y2)."""
    labels: NDArray[np.int64]
    """(n,): class indices, 0 the first class (in a mask the background is 0 and the first class 1)."""
    difficult: NDArray[np.bool_]
    """(n,): not to be counted, whether found or missed."""
    width: int
    height: int


@runtime_checkable
class AnnotatedDataset(Dataset, Protocol):
    """A data set that knows the objects of its images. ``labels`` are all -1."""

    annotations: list[Annotation]
    """One an image, in the order of the ids; known without decoding an image."""

    def mask(self, index: int) -> Mask:
        """uint8 (H, W): 0 background, class index + 1, or ``IGNORED``.

        Raises:
            BenchError: the image has no mask, or one that cannot be used.
        """
        ...


def presence(annotations: Sequence[Annotation], classes: int) -> NDArray[np.int8]:
    """Labels for classification, int8 (N, classes): 1 there, 0 not there, -1 there but only as difficult objects.

    As VOC's lists ``<class>_<split>.txt``, which write 1, -1 and 0. Where it is -1, the image does not count for the
    class, neither in training nor in testing.
    """
    found = np.zeros((len(annotations), classes), np.int8)
    for row, known in zip(found, annotations, strict=True):
        row[known.labels[known.difficult]] = -1
        row[known.labels[~known.difficult]] = 1
    return found
