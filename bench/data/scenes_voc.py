"""``scenes-voc``: scenes with boxes and masks, the embedded default for what is measured on PASCAL VOC.

The same scenes and the same rules as ``scenes.write_voc_devkit`` writes them, without files: square images, boxes of
what is visible, borders of the masks ignored, and objects that hardly show marked difficult.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data import scenes
from bench.data.annotation import Annotation
from bench.data.base import Sample
from bench.data.voc_xml import annotation
from bench.files import canonical

VERSION = 1
"""Bump it when a mask's border or a difficult mark changes; pixels and boxes are under ``scenes.VERSION``."""


class ScenesVoc:
    """Satisfies :class:`bench.data.annotation.AnnotatedDataset`.

    Args:
        splits: any names, such as trainval and test; each is a stream of its own.
        size: images per split, at least 20, so that every class is in every split.
        side: pixels.
        cache: folder that keeps what is drawn.

    Raises:
        BenchError: an argument is out of range; the cache cannot be written.
    """

    classes: tuple[str, ...] = scenes.CLASSES

    def __init__(self, splits: tuple[str, ...], size: int, side: int = 128, cache: Path | None = None) -> None:
        scenes.check(splits, size, side, len(self.classes))
        scenes.check_all_classes(size, len(self.classes))
        self._splits, self._size, self._side = tuple(sorted(splits)), size, side
        self.name = f"scenes-voc/{'+'.join(self._splits)}"
        self.ids = [f"{split}/{number:06d}" for split in self._splits for number in range(size)]
        self.labels = np.full(len(self.ids), -1, dtype=np.int64)
        what = {"scenes": scenes.VERSION, "voc": VERSION, "splits": self._splits, "size": size, "side": side}
        self.digest = hashlib.sha256(canonical(what).encode()).hexdigest()[:16]
        planes = (4, side, side)
        self._cache = scenes.PixelCache(cache / f"scenes-voc-{self.digest}.bin", planes) if cache is not None else None

    @functools.cached_property
    def annotations(self) -> list[Annotation]:
        """One an image."""
        return [_annotation(self._draw(index)) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        import torch

        return Sample(torch.from_numpy(self._planes(index)[:3]), index)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """uint8 (side, side): 0 background, class index + 1, or 255 along the borders."""
        return self._planes(index)[3]

    def _planes(self, index: int) -> NDArray[np.uint8]:
        """uint8 (4, side, side): red, green, blue and the mask."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        planes = self._cache.read(index) if self._cache else None
        if planes is None:
            scene = self._draw(index)
            planes = np.concatenate([scene.image.transpose(2, 0, 1), scenes.with_borders(scene, scene.mask)[None]])
            if self._cache:
                self._cache.write(index, planes)
        return planes

    def _draw(self, index: int) -> scenes.Scene:
        return scenes.render(self._splits[index // self._size], index % self._size, self._side)


def _annotation(scene: scenes.Scene) -> Annotation:
    hard = scenes.difficult_boxes(scene)
    objects = [
        [float(value) for value in (box.label, difficult, box.x1 + 1, box.y1 + 1, box.x2 + 1, box.y2 + 1)]
        for box, difficult in zip(scene.boxes, hard, strict=True)
    ]
    return annotation(objects, *scene.mask.shape[::-1])
