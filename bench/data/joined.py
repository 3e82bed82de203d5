"""Two devkits of PASCAL VOC as one data set: what detectors are trained on as "07+12"."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.data.annotation import AnnotatedDataset
from bench.data.base import Sample
from bench.errors import BenchError


class Joined:
    """The images of several data sets, in the order of their ids.

    Satisfies :class:`bench.data.annotation.AnnotatedDataset`.

    Raises:
        BenchError: they have different classes, or an id in common.
    """

    def __init__(self, parts: Sequence[AnnotatedDataset]) -> None:
        self.name = " + ".join(part.name for part in parts)
        self.classes = parts[0].classes
        if any(part.classes != self.classes for part in parts):
            raise BenchError(f"{self.name} have different classes")
        places = sorted((id_, k, i) for k, part in enumerate(parts) for i, id_ in enumerate(part.ids))
        self.ids = [id_ for id_, _, _ in places]
        if len(set(self.ids)) < len(self.ids):
            raise BenchError(f"{self.name} have images in common")
        self._parts, self._places = parts, [(parts[k], i) for _, k, i in places]
        self.labels = np.array([part.labels[i] for part, i in self._places], dtype=np.int64)
        self.annotations = [part.annotations[i] for part, i in self._places]
        self.digest = hashlib.sha256(" ".join(part.digest for part in parts).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        part, own = self._places[index]
        return part[own]._replace(index=index)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """As the data set has it that the image is of."""
        part, own = self._places[index]
        return part.mask(own)
