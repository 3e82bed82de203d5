"""Object proposals: Selective Search (Uijlings et al., IJCV 2013) computed once, or published ones read from a file.

OpenCV's implementation. Each image's boxes are kept under the digest of its pixels, so that any number of processes
may work on them, a killed one goes on where it was, and data sets that share images share the work; a data set's boxes
are then put together in one file under its own digest.

Deviations from the paper's code: boxes are those of OpenCV's own strategies, and narrow ones are kept (the paper's drop
what is under 20 pixels wide). OpenCV orders boxes from small to large, each weighted by chance, where the paper's begin
with the large ones; where there are too many, those at its end stay. Its chance is libc's, seeded for each image.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.base import Dataset
from bench.errors import BenchError, did_you_mean
from bench.files import atomic

if TYPE_CHECKING:
    from torch import Tensor

MODES = ("fast", "quality")

Boxes = NDArray[np.float32]
"""(n, 4): x1, y1, x2, y2 of the edges in the image's own pixels, from 0."""
Progress = Callable[[int], None]
"""Called with the number of images that are done."""

_VERSION = 1
"""Bump it when boxes change: it is part of the folder's name."""


@dataclass(frozen=True)
class SelectiveSearch:
    """How boxes are found."""

    mode: str = "fast"
    short: int | None = None
    """Shrink the image so that its short side has so many pixels; None: search it as it is."""
    keep: int = 2000
    """At most so many boxes an image."""

    def __post_init__(self) -> None:
        """Raises BenchError: no such mode, or a number below 1."""
        if self.mode not in MODES:
            raise did_you_mean("mode of Selective Search", self.mode, list(MODES))
        if self.keep < 1 or (self.short is not None and self.short < 1):
            raise BenchError("Selective Search keeps at least one box, of images of at least one pixel")

    def __str__(self) -> str:
        return f"{self.mode}-{'full' if self.short is None else f'short{self.short}'}-{self.keep}"

    def boxes(self, image: Tensor) -> Boxes:
        """The boxes of uint8 (3, H, W), RGB, sorted, each once; at least one.

        Raises:
            BenchError: OpenCV comes without Selective Search.
        """
        import cv2

        require_selective_search()
        height, width = image.shape[1:]
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        pixels = self._shrunk(image).flip(0).permute(1, 2, 0).contiguous().numpy()
        search.setBaseImage(pixels)
        getattr(search, f"switchToSelectiveSearch{self.mode.capitalize()}")()
        ctypes.CDLL(None).srand(1)
        ordered = np.asarray(search.process(), dtype=np.float64).reshape(-1, 4)[::-1]
        first = np.sort(np.unique(ordered, axis=0, return_index=True)[1])
        found = ordered[first[: self.keep]]
        if not len(found):
            found = np.array([[0.0, 0.0, pixels.shape[1], pixels.shape[0]]])
        scale = np.array([width / pixels.shape[1], height / pixels.shape[0]] * 2)
        edges = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1) * scale
        return np.unique(edges.astype(np.float32), axis=0)

    def _shrunk(self, image: Tensor) -> Tensor:
        from bench.data.transforms import resize_short

        if self.short is None or min(image.shape[1:]) <= self.short:
            return image
        return resize_short(image, self.short)


class Proposals:
    """The boxes of every image of a data set, by its position."""

    def __init__(self, boxes: list[Boxes] | tuple[NDArray[np.int64], Boxes]) -> None:
        if isinstance(boxes, tuple):
            self._starts, self._boxes = boxes
        else:
            self._starts = np.cumsum([0, *map(len, boxes)])
            self._boxes = np.concatenate([np.zeros((0, 4), np.float32), *boxes])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Boxes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._boxes[self._starts[index] : self._starts[index + 1]]

    def __iter__(self) -> Iterator[Boxes]:
        return (self[index] for index in range(len(self)))

    @property
    def digest(self) -> str:
        """16 hex digits that change when a box does."""
        sha = hashlib.sha256(self._starts.astype("<i8").tobytes())
        sha.update(self._boxes.astype("<f4").tobytes())
        return sha.hexdigest()[:16]

    def save(self, file: Path) -> None:
        """Write them as an ``.npz``."""
        with atomic(file, "wb") as out:
            np.savez_compressed(out, starts=self._starts, boxes=self._boxes)


def require_selective_search() -> None:
    """Raises BenchError: OpenCV comes without Selective Search."""
    import cv2

    if not hasattr(getattr(cv2, "ximgproc", None), "segmentation"):
        raise BenchError("this OpenCV has no Selective Search", mend="run: bench install opencv-contrib")


def compute(
    dataset: Dataset,
    search: SelectiveSearch,
    cache: Path,
    *,
    workers: int,
    progress: Progress = lambda done: None,
) -> Proposals:
    """The proposals of a data set, found where they are missing, by ``workers`` processes (0: this one).

    Raises:
        BenchError: OpenCV comes without Selective Search, an image is corrupt, or the disk is full.
    """
    from bench.data.parallel import in_processes

    whole = _whole(dataset, search, cache)
    if not whole.is_file():
        require_selective_search()
        parts = []
        for part in in_processes(_Search(dataset, search, whole.parent), range(len(dataset)), workers, whole.parent):
            parts.append(part)
            progress(len(parts))
        Proposals([_read_part(part) for part in parts]).save(whole)
    progress(len(dataset))
    return _read(whole)


def load(dataset: Dataset, search: SelectiveSearch, cache: Path) -> Proposals:
    """The proposals of a data set that were computed before.

    Raises:
        BenchError: an image has none yet (the command that finds them is named), or the file is damaged.
    """
    whole = _whole(dataset, search, cache)
    if not whole.is_file():
        parts = []
        for index in range(len(dataset)):
            part = _part(whole.parent, dataset[index].image)
            if not part.is_file():
                raise BenchError(
                    f"{dataset.name} has no proposals ({search}), not of image {dataset.ids[index]}",
                    where=whole.parent,
                    mend=_command(dataset, search),
                )
            parts.append(part)
        Proposals([_read_part(part) for part in parts]).save(whole)
    return _read(whole)


class _Search:
    """Searches one image when it is asked for by number, in a worker; gives the file of its boxes or a BenchError."""

    def __init__(self, dataset: Dataset, search: SelectiveSearch, folder: Path) -> None:
        self.dataset, self.search, self.folder = dataset, search, folder

    def __getitem__(self, index: int) -> Path | BenchError:
        import cv2

        cv2.setNumThreads(1)  # one process a core
        try:
            image = self.dataset[index].image
            part = _part(self.folder, image)
            if not part.is_file():
                with atomic(part, "wb") as out:
                    np.save(out, self.search.boxes(image))
        except BenchError as error:
            return error
        return part


def _whole(dataset: Dataset, search: SelectiveSearch, cache: Path) -> Path:
    return cache / "proposals" / f"{search}-v{_VERSION}" / f"{dataset.digest}.npz"


def _part(folder: Path, image: Tensor) -> Path:
    sha = hashlib.sha256(repr(tuple(image.shape)).encode())
    sha.update(image.contiguous().numpy().data)
    digest = sha.hexdigest()[:32]
    return folder / digest[:2] / f"{digest}.npy"


def _read_part(part: Path) -> Boxes:
    try:
        return np.load(part, allow_pickle=False).reshape(-1, 4).astype(np.float32)
    except (OSError, ValueError) as error:
        raise _damaged(part, error) from error


def _read(file: Path) -> Proposals:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return Proposals((stored["starts"].astype(np.int64), stored["boxes"].astype(np.float32)))
    except Exception as error:  # zipfile's and numpy's readers raise many kinds on damaged data
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> BenchError:
    return BenchError(f"the proposals are damaged: {error}", where=file, mend="remove the file and compute them again")


def _command(dataset: Dataset, search: SelectiveSearch) -> str:
    name, *_, splits = dataset.name.split("/")
    options = [f"--split {split}" for split in splits.split("+")]
    options += [f"--mode {search.mode}"] * (search.mode != "fast")
    options += [f"--short {search.short}"] * (search.short is not None)
    return f"run: bench data proposals {name} {' '.join(options)}"
