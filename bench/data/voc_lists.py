"""Which images belong to a split of a PASCAL VOC devkit, and where their masks lie. Imports nothing heavy.

Layout, as torchvision's: ``<data set>/VOCdevkit/VOC2007/`` with ``JPEGImages``, ``Annotations``,
``ImageSets/{Main,Segmentation}`` and ``SegmentationClass``. A split is read from ``ImageSets/<lists>/<split>.txt``;
these further ones say themselves where they lie:

- ``sbd-train``, ``sbd-val``: the images of SBD (Hariharan et al., 2011), ``<data set>/sbd/{train,val}.txt``, and its
  masks ``<data set>/sbd/cls/<id>.mat``; the images themselves are VOC2012's.
- ``trainaug``: VOC's training images and SBD's, ``ImageSets/Segmentation/trainaug.txt``, with the masks in
  ``SegmentationClassAug``.
- ``seg11valid``: the 736 validation images of VOC2011 that SBD's train does not have,
  ``ImageSets/Segmentation/seg11valid.txt``, with VOC's own masks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError

LISTS = ("Main", "Segmentation")

_SBD = "put cls, train.txt and val.txt of SBD's benchmark_RELEASE/dataset into the folder sbd"
_AUG = "put DeepLab's trainaug.txt there, and its masks into SegmentationClassAug beside JPEGImages"
_SEG11VALID = "put seg11valid.txt there, from data/pascal of https://github.com/shelhamer/fcn.berkeleyvision.org"


class Source(NamedTuple):
    """Where the ids and the masks of a split lie, under the data set's folder."""

    ids: str
    masks: str
    """With {} for the id."""
    masked: bool
    """Whether every image has a mask."""
    mend: str | None = None
    """Where to get what the devkit does not have."""


def source_of(year: str, split: str, lists: str = "Main") -> Source:
    """Of a split; ``year`` is the devkit's folder, such as VOC2007."""
    kit, masks = f"VOCdevkit/{year}", f"VOCdevkit/{year}/SegmentationClass/{{}}.png"
    match split:
        case "sbd-train" | "sbd-val":
            return Source(f"sbd/{split.removeprefix('sbd-')}.txt", "sbd/cls/{}.mat", True, _SBD)
        case "trainaug":
            aug = f"{kit}/SegmentationClassAug/{{}}.png"
            return Source(f"{kit}/ImageSets/Segmentation/trainaug.txt", aug, True, _AUG)
        case "seg11valid":
            return Source(f"{kit}/ImageSets/Segmentation/seg11valid.txt", masks, True, _SEG11VALID)
    return Source(f"{kit}/ImageSets/{lists}/{split}.txt", masks, lists == "Segmentation")


def read_ids(file: Path, mend: str | None = None) -> list[str]:
    """The first word of every line of a list; ``mend`` says where to get one that is missing.

    Raises:
        BenchError: it cannot be read, names no image, or something that is no image's name.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise BenchError(f"cannot read the list of images: {reason}", where=file, mend=mend) from error
    ids = [line.split()[0] for line in lines if line.strip()]
    if not ids:
        raise BenchError("the list names no image", where=file)
    if strange := [i for i in ids if "/" in i or i.startswith(".") or not i.isprintable()]:
        raise BenchError(f"{strange[0]!r} is no image's name", where=file)
    return ids


def count(year: str, folder: Path, split: str) -> int:
    """How many images of a split are there; 0 where it has no list.

    A split that only ``ImageSets/Segmentation`` has is counted there.
    """
    found = [folder / source_of(year, split, lists).ids for lists in LISTS]
    try:
        with os.scandir(folder / "VOCdevkit" / year / "JPEGImages") as entries:
            there = {entry.name for entry in entries}
        listed = next((read_ids(file) for file in found if file.is_file()), [])
    except (OSError, BenchError):
        return 0
    return sum(f"{image}.jpg" in there for image in listed)
