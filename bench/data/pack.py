"""Packed stores: a data set's images, resized once and kept as raw pixels, so that no epoch decodes them again.

The AlexNet protocols resize every image to a fixed geometry, then crop and mirror. What comes after the resize is
read from the store, pixel for pixel what decoding and resizing would give.

A store is the folder ``<cache>/packed/<data digest>-<geometry>``. It holds chunks of 1,024 images each, and
``pack.json``, which is written last: where it stands, the store is complete. A chunk is its images, one after the
other, uint8 (3, H, W); then their heights and widths, int32 (n, 2), little-endian; then the sha256 of all that. A
chunk appears by one rename, so packing that was stopped goes on where it was. Importing this imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import __version__
from bench.data.base import Dataset, Sample
from bench.errors import BenchError, did_you_mean
from bench.files import atomic, read_json, write_json, writing_failed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SCHEMA = 1
MODES = ("short", "square")
CHUNK = 1024
"""Images a chunk: about 270 MB at a short side of 256."""

Progress = Callable[[int], None]
"""Called with the number of images that are there."""

_HEADER = "pack.json"
_SHA = 32
_THREADS = 4
"""Threads that read while a store is checked."""


@dataclass(frozen=True)
class Geometry:
    """A fixed resize. ``short``: the short side at ``side``, the long one in proportion; ``square``: both."""

    side: int
    mode: str = "short"
    kernel: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Raises BenchError: no such mode, or no positive side."""
        if self.mode not in MODES:
            raise did_you_mean("mode", self.mode, list(MODES))
        if self.side < 1:
            raise BenchError(f"images cannot be resized to {self.side} pixels")

    def __str__(self) -> str:
        return f"{self.mode}{self.side}-{self.kernel}{'' if self.antialias else '-aliased'}"

    def resize(self, image: Tensor) -> Tensor:
        """uint8 (C, H, W) -> uint8 (C, h, w); the image itself where it has that size.

        Raises:
            BenchError: no such kernel.
        """
        from bench.data import transforms

        if self.mode == "square":
            return transforms.resize(image, (self.side, self.side), self.kernel, self.antialias)
        return transforms.resize_short(image, self.side, self.kernel, self.antialias)


class Packed:
    """A data set whose images come resized, from its store; all else, the digest too, is the data set's own.

    Resizing them again by the same geometry gives the image itself. Satisfies ``Dataset``.

    Raises:
        BenchError: the store is not of this data set, or damaged as far as sizes tell (``check`` reads it all).
    """

    def __init__(self, dataset: Dataset, geometry: Geometry, cache: Path) -> None:
        import numpy as np

        self.name, self.ids, self.classes = dataset.name, dataset.ids, dataset.classes
        self.labels, self.digest = dataset.labels, dataset.digest
        self.geometry, self.folder = geometry, store(dataset, geometry, cache)
        tails = _tails(self.folder, _header(self.folder, dataset, geometry))
        self._sizes = np.concatenate([tail.sizes for tail in tails])
        self._starts = np.concatenate([_offsets(tail.sizes)[:-1] for tail in tails])
        self._chunks: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """The image is read-only: it is the store's own memory."""
        chunk, start = index // CHUNK, int(self._starts[index])
        if chunk not in self._chunks:
            self._chunks[chunk] = _map(self.folder / _name(chunk))
        height, width = self._sizes[index].tolist()
        pixels = self._chunks[chunk][start : start + 3 * height * width]
        return Sample(pixels.view(3, height, width), index, int(self.labels[index]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": {}}  # each process maps for itself


def packed(dataset: Dataset, geometry: Geometry | None, cache: Path) -> Dataset:
    """The data set from its store where it has one of that geometry; else as it is.

    Raises:
        BenchError: the store is damaged.
    """
    if geometry is None or not (store(dataset, geometry, cache) / _HEADER).is_file():
        return dataset
    return Packed(dataset, geometry, cache)


def store(dataset: Dataset, geometry: Geometry, cache: Path) -> Path:
    """The folder of a data set's store of that geometry."""
    return cache / "packed" / f"{dataset.digest}-{geometry}"


def headers(cache: Path) -> list[dict[str, Any]]:
    """The ``pack.json`` of every complete store under the cache, in the order of their folders."""
    return [read_json(file) for file in sorted((cache / "packed").glob(f"*/{_HEADER}"))]


def pack(
    dataset: Dataset, geometry: Geometry, cache: Path, *, workers: int, progress: Progress = lambda done: None
) -> Path:
    """Write the store of a data set, or what it lacks; ``workers`` processes (0: this one). Its folder.

    Raises:
        BenchError: no such kernel, an image is corrupt, the disk is full, or another process is packing the same.
    """
    from bench.data.parallel import in_processes

    geometry.resize(dataset[0].image)
    folder = store(dataset, geometry, cache)
    with _alone(folder):
        for left in folder.glob(".*.tmp"):
            left.unlink()
        sizes = _chunk_sizes(len(dataset))
        missing = [i for i, n in enumerate(sizes) if _tail(folder / _name(i), n) is None]
        done = len(dataset) - sum(sizes[i] for i in missing)
        progress(done)
        for number in in_processes(_Chunks(dataset, geometry, folder), missing, workers, folder):
            done += sizes[number]
            progress(done)
        _write_header(folder, dataset, geometry)
    return folder


def check(dataset: Dataset, geometry: Geometry, cache: Path) -> Path:
    """Hold every pixel of a store against its checksums. Its folder.

    Raises:
        BenchError: there is no store, or it is damaged; damaged chunks are removed, so that packing renews them.
    """
    folder = store(dataset, geometry, cache)
    _tails(folder, _header(folder, dataset, geometry))
    files = [folder / _name(i) for i in range(len(_chunk_sizes(len(dataset))))]
    with ThreadPoolExecutor(_THREADS) as pool:
        bad = [file for file, whole in zip(files, pool.map(_is_whole, files), strict=True) if not whole]
    for file in bad:
        file.unlink()
    if bad:
        raise _damaged(folder, f"{len(bad)} of {len(files)} chunks do not match their checksums and were removed")
    return folder


class _Tail(NamedTuple):
    """What a chunk holds after its pixels."""

    sizes: np.ndarray
    """int32 (n, 2): height and width."""
    sha256: bytes


class _Chunks:
    """Writes one chunk when it is asked for by number, in a loader's process; gives the number or a BenchError."""

    def __init__(self, dataset: Dataset, geometry: Geometry, folder: Path) -> None:
        self.dataset, self.geometry, self.folder = dataset, geometry, folder

    def __getitem__(self, number: int) -> int | BenchError:
        images = range(number * CHUNK, min((number + 1) * CHUNK, len(self.dataset)))
        try:
            _write_chunk(self.folder / _name(number), (self.geometry.resize(self.dataset[i].image) for i in images))
        except BenchError as error:
            return error  # raised by the main process, without the worker's traceback
        return number


def _write_chunk(file: Path, images: Iterable[Tensor]) -> None:
    import numpy as np

    sha, sizes = hashlib.sha256(), []
    with atomic(file, "wb") as out:
        for image in images:
            pixels = image.contiguous().numpy().data
            out.write(pixels)
            sha.update(pixels)
            sizes.append(image.shape[1:])
        table = np.array(sizes, dtype="<i4").tobytes()
        sha.update(table)
        out.write(table + sha.digest())


def _write_header(folder: Path, dataset: Dataset, geometry: Geometry) -> None:
    import torch

    tails = [_tail(folder / _name(i), n) for i, n in enumerate(_chunk_sizes(len(dataset)))]
    whole = [tail for tail in tails if tail is not None]
    if len(whole) < len(tails):
        raise _damaged(folder, f"{len(tails) - len(whole)} chunks vanished while it was written")
    header = {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "digest": dataset.digest,
        "images": len(dataset),
        "bytes": sum(int(_offsets(tail.sizes)[-1]) for tail in whole),
        "geometry": asdict(geometry),
        "chunk": CHUNK,
        "sha256": _sha256_of(whole),
        "made_by": {"bench": __version__, "torch": torch.__version__},
    }
    write_json(folder / _HEADER, header)


def _header(folder: Path, dataset: Dataset, geometry: Geometry) -> dict[str, Any]:
    """Raises BenchError: there is no store, or it is another's."""
    if not (folder / _HEADER).is_file():
        raise BenchError(f"{dataset.name} has no packed store", where=folder, mend=_REPACK)
    header: dict[str, Any] = read_json(folder / _HEADER)
    expected = {
        "schema": SCHEMA,
        "digest": dataset.digest,
        "images": len(dataset),
        "geometry": asdict(geometry),
        "chunk": CHUNK,
    }
    for key, value in expected.items():
        if header.get(key) != value:
            raise BenchError(
                f"the packed store has {key} {header.get(key)!r}, not {value!r}", where=folder, mend="remove the folder"
            )
    return header


def _tails(folder: Path, header: dict[str, Any]) -> list[_Tail]:
    """Of every chunk.

    Raises:
        BenchError: a chunk is missing or has another length, or sizes and checksums are not those of the header.
    """
    found = []
    for number, images in enumerate(_chunk_sizes(header["images"])):
        tail = _tail(folder / _name(number), images)
        if tail is None:
            raise _damaged(folder, f"{_name(number)} is missing or not whole")
        found.append(tail)
    if _sha256_of(found) != header["sha256"]:
        raise _damaged(folder, "its chunks are not those of its header")
    return found


def _tail(file: Path, images: int) -> _Tail | None:
    """What a chunk of so many images ends with; None where it is not there or its length does not fit."""
    import numpy as np

    length = 8 * images + _SHA
    try:
        with file.open("rb") as chunk:
            size = chunk.seek(0, os.SEEK_END)
            if size < length:
                return None
            chunk.seek(size - length)
            data = chunk.read(length)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchError(f"cannot read the packed store: {error.strerror}", where=file) from error
    sizes = np.frombuffer(data[:-_SHA], dtype="<i4").reshape(images, 2)
    fits = (sizes > 0).all() and _offsets(sizes)[-1] + length == size
    return _Tail(sizes, data[-_SHA:]) if fits else None


def _sha256_of(tails: list[_Tail]) -> str:
    return hashlib.sha256(b"".join(tail.sizes.tobytes() + tail.sha256 for tail in tails)).hexdigest()


def _is_whole(file: Path) -> bool:
    """Whether a chunk is what its checksum says."""
    sha, left = hashlib.sha256(), file.stat().st_size - _SHA
    with file.open("rb") as chunk:
        while left and (data := chunk.read(min(left, 1 << 20))):
            sha.update(data)
            left -= len(data)
        return sha.digest() == chunk.read()


def _offsets(sizes: np.ndarray) -> np.ndarray:
    """int64 (n + 1,): where each image of a chunk starts, and where the last ends."""
    import numpy as np

    return np.concatenate([[0], np.cumsum(3 * sizes.astype(np.int64).prod(axis=1))])


def _map(file: Path) -> Tensor:
    """A chunk as uint8 (bytes,), read-only."""
    import warnings

    import numpy as np
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r"))


def _chunk_sizes(images: int) -> list[int]:
    return [min(CHUNK, images - start) for start in range(0, images, CHUNK)]


def _name(number: int) -> str:
    return f"{number:05d}.chunk"


_REPACK = "run `bench data pack` for this data set and geometry"


def _damaged(folder: Path, why: str) -> BenchError:
    return BenchError(f"the packed store is damaged: {why}", where=folder, mend=f"{_REPACK}: it renews what lacks")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        BenchError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise writing_failed(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BenchError(
                "another process is packing this (one that was killed takes some seconds to end)", where=folder
            ) from error
        yield
