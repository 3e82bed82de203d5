"""PASCAL VOC's devkit: images, boxes, masks and the lists that say which belong to a split.

The layout is said in :mod:`bench.data.voc_lists`. Annotations are parsed once and cached under their files' sizes and
times.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.annotation import IGNORED
from bench.data.base import Sample
from bench.data.images import read_image
from bench.data.voc_lists import LISTS, Source, read_ids, source_of
from bench.data.voc_xml import CLASSES, annotation, read_annotation, rows
from bench.errors import BenchError, did_you_mean
from bench.files import atomic, canonical, read_json

_SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again within the clock's grain."""
_THREADS = 16
"""Asking for sizes and times waits for the file system, above all a networked one."""


class Voc:
    """Some splits of a devkit as one data set, in the order of the ids (``2008_000008``).

    Satisfies :class:`bench.data.annotation.AnnotatedDataset`.

    Args:
        name: what it is called, such as ``voc2007``.
        folder: holds ``VOCdevkit``.
        year: ``VOC2007`` or ``VOC2012``.
        splits: no image may be in two of them.
        lists: which folder of ``ImageSets`` is meant by a split's name.
        cache: keeps the parsed annotations.

    Raises:
        BenchError: a list is missing, empty or names an image twice; an image, an annotation or (``Segmentation``)
            a mask is missing; an annotation cannot be used (see :func:`bench.data.voc_xml.read_annotation`).
    """

    classes: tuple[str, ...] = CLASSES

    def __init__(
        self, name: str, folder: Path, year: str, splits: tuple[str, ...], cache: Path, lists: str = "Main"
    ) -> None:
        if lists not in LISTS:
            raise did_you_mean("kind of lists", lists, list(LISTS))
        self.name = "/".join([name, *([lists] if lists != "Main" else []), "+".join(splits)])
        self._kit, sources = folder / "VOCdevkit" / year, [source_of(year, split, lists) for split in splits]
        self._masks = _masks(folder, sources)
        self.ids = sorted(self._masks)
        self.labels = np.full(len(self.ids), -1, dtype=np.int64)
        entries = _entries(self._kit, self.ids, cache)
        self.annotations = [annotation(entry["objects"], *entry["size"]) for entry in entries]
        images = _sizes([self._image(i) for i in self.ids], "image")
        masked = [self._masks[i] for i in self.ids] if all(source.masked for source in sources) else []
        what = zip(self.ids, images, [[entry["size"], entry["objects"]] for entry in entries], strict=True)
        described = canonical([self.name, *map(list, what), *_sizes(masked, "mask")])
        self.digest = hashlib.sha256(described.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises BenchError: the image cannot be decoded, or has another size than its annotation says."""
        file, known = self._image(self.ids[index]), self.annotations[index]
        image = read_image(str(file))
        if image.shape[1:] != (known.height, known.width):
            raise BenchError(
                f"the image has {image.shape[2]} x {image.shape[1]} pixels, "
                f"its annotation says {known.width} x {known.height}",
                where=file,
            )
        return Sample(image, index)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W): 0 background, class index + 1, or 255, which does not count.

        Raises:
            BenchError: there is no mask, it cannot be decoded, is no palette or grey image of 8 bits, has not the
                image's size, or a value that is no class.
        """
        file, known = self._masks[self.ids[index]], self.annotations[index]
        values = _read_mask(file)
        if values.shape != (known.height, known.width):
            size = " x ".join(map(str, values.shape[::-1]))
            raise BenchError(f"the mask has {size} pixels, its image {known.width} x {known.height}", where=file)
        if wrong := set(np.unique(values).tolist()) - {*range(len(CLASSES) + 1), IGNORED}:
            raise BenchError(f"the mask has the value {min(wrong)}, which is no class", where=file)
        return values

    def _image(self, image: str) -> Path:
        return self._kit / "JPEGImages" / f"{image}.jpg"


def _masks(folder: Path, sources: list[Source]) -> dict[str, Path]:
    """The file of every image's mask, whether it is there or not."""
    found: dict[str, Path] = {}
    for source in sources:
        for image in read_ids(folder / source.ids, source.mend):
            if image in found:
                raise BenchError(f"image {image} is listed twice", where=folder / source.ids)
            found[image] = folder / source.masks.format(image)
    return found


def _sizes(files: list[Path], what: str) -> list[int]:
    """In bytes."""
    return [size for size, _ in _stats(files, what)]


def _stats(files: list[Path], what: str) -> list[tuple[int, int]]:
    """Size and time of each file.

    Raises:
        BenchError: one is missing.
    """

    def ask(file: Path) -> tuple[int, int]:
        try:
            stat = file.stat()
        except OSError as error:
            raise BenchError(f"the {what} is missing: {error.strerror}", where=file) from error
        return stat.st_size, stat.st_mtime_ns

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(ask, files))


def _entries(kit: Path, ids: list[str], cache: Path) -> list[dict[str, Any]]:
    """What is known of each image: its file's state, ``size`` and ``objects``; parsed where that has changed."""
    index = cache / "indices" / f"voc-{hashlib.sha256(os.fsencode(kit.absolute())).hexdigest()[:16]}.json"
    known, now, new = _known(index), time.time_ns(), {}
    files = [kit / "Annotations" / f"{image}.xml" for image in ids]
    entries = []
    for image, file, state in zip(ids, files, _stats(files, "annotation"), strict=True):
        entry = known.get(image)
        if entry is None or tuple(entry["state"]) != state:
            read = read_annotation(file)
            entry = {"state": state, "size": [read.width, read.height], "objects": rows(read)}
            if now - state[1] > _SETTLED_NS:
                new[image] = entry
        entries.append(entry)
    if new:
        with atomic(index) as out:
            out.write(canonical(known | new))
    return entries


def _known(index: Path) -> dict[str, dict[str, Any]]:
    """The cached entries; none where the cache is missing or damaged."""
    try:
        found: dict[str, dict[str, Any]] = read_json(index)
        return {i: e for i, e in found.items() if {"state", "size", "objects"} <= e.keys()}
    except (BenchError, AttributeError):
        return {}


def _read_mask(file: Path) -> NDArray[np.uint8]:
    try:
        if file.suffix == ".mat":
            return _read_sbd(file)
        with Image.open(file) as image:
            if image.mode not in ("P", "L"):
                raise ValueError(f"mode {image.mode}, not a palette or grey image of 8 bits")
            return np.array(image)
    except OSError as error:
        reason = error.strerror or "not an image, or a damaged one"
        raise BenchError(f"cannot read the mask: {reason}", where=file) from error
    except Exception as error:  # Pillow's and scipy's readers raise many kinds on damaged data
        raise BenchError(f"cannot use the mask: {error}", where=file) from error


def _read_sbd(file: Path) -> NDArray[np.uint8]:
    from scipy.io import loadmat

    stored = loadmat(file, squeeze_me=True, struct_as_record=False)
    return np.ascontiguousarray(stored["GTcls"].Segmentation, dtype=np.uint8)
