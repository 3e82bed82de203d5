"""Which images lie under a split's folder: listed once, cached by the folders' modification times.

A split's folder holds either class folders full of images (labelled) or images (unlabelled). Adding, removing
or renaming a file changes its folder's time, and only that folder is listed again; a file that is overwritten
in place is not noticed (remove the cached index then). Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from bench.errors import BenchError
from bench.files import atomic, canonical, read_json

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")

_SETTLED_NS = 2_000_000_000
"""A folder that changed less than this before it was listed may change again within the clock's grain."""
_THREADS = 16
"""Listing waits for the file system, above all a networked one."""


class Listing(TypedDict):
    """What lies directly in one folder, sorted by name."""

    time: int
    folders: list[str]
    images: list[str]
    sizes: list[int]


def index(split: Path, cache: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Listing]:
    """The images of a split: {class folder: its listing}, sorted; {"": listing} where the split is flat.

    With other ``suffixes`` the files of those, in place of images.

    Raises:
        BenchError: the folder cannot be read, a class folder is empty, there are no images at all, or images lie
            beside class folders.
    """
    file = _file(split, cache, suffixes)
    known = _read(file)
    top = _listing("", split, known, suffixes)
    with ThreadPoolExecutor(_THREADS) as pool:
        listings = pool.map(lambda name: _listing(name, split / name, known, suffixes), top["folders"])
        found = {"": top, **dict(zip(top["folders"], listings, strict=True))}
    _check(split, found, suffixes)
    now = time.time_ns()
    settled = {name: listing for name, listing in found.items() if now - listing["time"] > _SETTLED_NS}
    if settled != known:
        with atomic(file) as out:
            out.write(canonical({"split": str(split), "listings": settled}))
    return {"": top} if not top["folders"] else {name: found[name] for name in top["folders"]}


def count(split: Path, cache: Path) -> tuple[int, int]:
    """(images, class folders) of a split's folder: counted only, or known from its index.

    Raises:
        BenchError: a folder cannot be read.
    """
    known = _read(_file(split, cache, SUFFIXES))
    folders = class_folders(split)
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(lambda name: _images(name, split / name, known), ["", *folders])), len(folders)


def class_folders(split: Path) -> list[str]:
    """The names of a split's class folders, sorted; none where it is flat.

    Raises:
        BenchError: the folder cannot be read.
    """
    return sorted(entry.name for entry in scan(split) if entry.is_dir())


def is_image(name: str) -> bool:
    """Whether a file of that name is taken for an image."""
    return name.lower().endswith(SUFFIXES)


def _file(split: Path, cache: Path, suffixes: tuple[str, ...]) -> Path:
    own = "" if suffixes == SUFFIXES else " ".join(suffixes)
    name = os.fsencode(split.absolute()) + own.encode()
    return cache / "indices" / f"{hashlib.sha256(name).hexdigest()[:16]}.json"


def _images(name: str, folder: Path, known: dict[str, Listing]) -> int:
    if name in known and known[name]["time"] == folder.stat().st_mtime_ns:
        return len(known[name]["images"])
    return sum(is_image(entry.name) for entry in scan(folder))


def scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything in a folder but hidden names."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise BenchError(f"cannot read the folder: {error.strerror}", where=folder) from error


def _listing(name: str, folder: Path, known: dict[str, Listing], suffixes: tuple[str, ...]) -> Listing:
    """The known listing where the folder has not changed since, else a new one."""
    try:
        modified = folder.stat().st_mtime_ns
        if name in known and known[name]["time"] == modified:
            return known[name]
        folders, images = [], []
        for entry in scan(folder):
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(suffixes):
                images.append((entry.name, entry.stat().st_size))
    except OSError as error:
        raise BenchError(f"cannot read: {error.strerror}", where=error.filename or folder) from error
    images.sort()
    return {
        "time": modified,
        "folders": sorted(folders),
        "images": [image for image, _ in images],
        "sizes": [size for _, size in images],
    }


def _check(split: Path, found: dict[str, Listing], suffixes: tuple[str, ...]) -> None:
    top, classes = found[""], list(found)[1:]
    if not top["images"] and not classes:
        raise BenchError("no images", where=split, mend=f"it holds neither class folders nor {', '.join(suffixes)}")
    if top["images"] and classes:
        raise BenchError(
            f"{len(top['images'])} images lie beside {len(classes)} class folders, {top['images'][0]!r} the first",
            where=split,
            mend="a split holds class folders (labelled) or images (unlabelled): move them apart",
        )
    empty = [name for name in classes if not found[name]["images"]]
    if empty:
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise BenchError(
            f"class folder {empty[0]!r}{more} has no images",
            where=split / empty[0],
            mend="fill it or remove it; images lie directly in their class folder",
        )


def _read(file: Path) -> dict[str, Listing]:
    """The cached listings; none where the cache is missing or damaged."""
    try:
        listings: dict[str, Listing] = read_json(file)["listings"]
    except (BenchError, KeyError, TypeError):
        return {}
    return listings
