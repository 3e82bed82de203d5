"""Data sets of image files: ``<folder>/<split>/<class>/<image>`` (labelled) or ``<folder>/<split>/<image>``.

Pixels are taken as they are stored: an EXIF orientation is not applied, as in the papers' pipelines. Everything
becomes RGB, 8 bits a channel: grey is repeated, transparency dropped, 16 bits keep their upper 8. JPEG goes
through libjpeg-turbo (torchvision), all else through Pillow, for torchvision's PNG decoder ends the process on some
damaged files. The same file gives the same bits at every call.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode

from bench.data import folder_index
from bench.data.base import Dataset, Sample
from bench.errors import BenchError
from bench.files import read_json, write_json

_JPEG = b"\xff\xd8"
_decode_jpeg = torch.ops.image.decode_jpeg
"""The operator under ``torchvision.io.decode_jpeg``, which warns at every call that it will move to TorchCodec. It
takes half of Pillow's time on small images and agrees with it in every bit."""
_NAMED = 5
"""Corrupt images that a warning names; the rest are counted."""


class ImageDataset:
    """Images in files, in the order of their ids ``<split>/<path under the split>``; satisfies ``Dataset``."""

    def __init__(
        self, name: str, folder: Path, ids: list[str], sizes: list[int], labels: np.ndarray, classes: tuple[str, ...]
    ) -> None:
        self.name, self.ids, self.labels, self.classes = name, ids, labels, classes
        self.digest = _digest(name, *(f"{i}\t{size}" for i, size in zip(ids, sizes, strict=True)))
        self._folder, self._sizes = str(folder), sizes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises BenchError: the file cannot be read or decoded."""
        return Sample(read_image(f"{self._folder}/{self.ids[index]}"), index, int(self.labels[index]))

    def without(self, positions: Sequence[int]) -> ImageDataset:
        """The data set as if the files at these positions were not there."""
        keep = np.setdiff1d(np.arange(len(self)), positions)
        ids, sizes = [self.ids[i] for i in keep], [self._sizes[i] for i in keep]
        return ImageDataset(self.name, Path(self._folder), ids, sizes, self.labels[keep], self.classes)


class _OfFiles(Dataset, Protocol):
    def without(self, positions: Sequence[int]) -> Self: ...


D = TypeVar("D", bound=_OfFiles)


class Subset:
    """Some samples of a data set, renumbered 0, 1, ...; satisfies ``Dataset``."""

    def __init__(self, dataset: Dataset, indices: np.ndarray) -> None:
        self.name = f"{dataset.name}[{len(indices)}]"
        self.ids = [dataset.ids[i] for i in indices]
        self.classes, self.labels = dataset.classes, dataset.labels[indices]
        self.digest = _digest(dataset.digest, *map(str, indices))
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[int(self._indices[index])]._replace(index=index)


def subset(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """The samples at ``indices``, each once and in the data set's order; ids, labels and classes stay."""
    return Subset(dataset, np.unique(np.asarray(indices, dtype=np.int64)))


def open_images(
    name: str, folder: Path, splits: tuple[str, ...], cache: Path, *, skip_corrupt: bool = False
) -> ImageDataset:
    """The images of one or several splits of ``folder``, the data set that is called ``name``.

    Class folders are labelled in the order of their names, those of ``train`` where there is a ``train``: so
    splits agree on labels whichever are opened. Images without class folders have label -1. ``classes.tsv``
    (folder, tab, readable name) names the classes; without it their folders do. With ``skip_corrupt`` every image
    is decoded once (the outcome is cached) and those that fail are left out, with a warning that counts and names
    them; without it the first that is met raises.

    Raises:
        BenchError: a split is missing, empty or unreadable, or has a class folder that ``train`` does not have.
    """
    listings = {split: folder_index.index(folder / split, cache) for split in splits}
    wnids = _class_folders(folder, listings)
    label_of = {wnid: label for label, wnid in enumerate(wnids)} | {"": -1}
    found = sorted(
        (f"{split}/{wnid}/{image}" if wnid else f"{split}/{image}", size, label_of[wnid])
        for split, classes in listings.items()
        for wnid, listing in classes.items()
        for image, size in zip(listing["images"], listing["sizes"], strict=True)
    )
    readable = _readable(folder / "classes.tsv")
    dataset = ImageDataset(
        f"{name}/{'+'.join(splits)}",
        folder,
        [image for image, _, _ in found],
        [size for _, size, _ in found],
        np.array([label for _, _, label in found], dtype=np.int64),
        tuple(readable.get(wnid, wnid) for wnid in wnids),
    )
    return without_corrupt(dataset, cache) if skip_corrupt else dataset


def check_images(dataset: Dataset, workers: int = 4) -> list[tuple[str, str]]:
    """(id, reason) of every image that cannot be decoded, in order; ``workers`` threads.

    Raises:
        BenchError: a file cannot even be read.
    """

    def check(start: int) -> list[tuple[str, str]]:
        bad = []
        for index in range(start, min(start + 256, len(dataset))):
            try:
                dataset[index]
            except CorruptImageError as error:
                bad.append((dataset.ids[index], error.reason))
        return bad

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return [found for bad in pool.map(check, range(0, len(dataset), 256)) for found in bad]


class CorruptImageError(BenchError):
    """A file that is there and can be read, but not decoded."""

    what_it_is = "image"

    def __init__(self, reason: str, where: str) -> None:
        self.reason = reason
        mend = "replace or remove the file, or give the data set the option skip_corrupt = true"
        super().__init__(f"corrupt {self.what_it_is}: {reason}", where=where, mend=mend)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, str(self.where))


def read_image(path: str) -> Tensor:
    """uint8 (3, H, W), RGB.

    Raises:
        CorruptImageError: the file is no image, or damaged.
        BenchError: the file cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (Path.open takes longer than the read)
            data = file.read()
    except OSError as error:
        raise BenchError(f"cannot read the image: {error.strerror}", where=path) from error
    if data.startswith(_JPEG):
        try:
            return _decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB.value, False)
        except RuntimeError:
            pass  # Pillow reads some that torchvision refuses, and says better what is wrong with the others
    try:
        return _decode(data)
    except UnidentifiedImageError as error:
        raise CorruptImageError("not an image" if data else "an empty file", path) from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged data
        raise CorruptImageError(str(error) or type(error).__name__, path) from error


def _decode(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I;16"):
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            pixels = np.stack([grey] * 3, axis=2)
        elif image.mode in ("I", "F"):
            raise ValueError("pixels of 32 bits a channel")
        else:
            pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _class_folders(folder: Path, listings: dict[str, dict[str, folder_index.Listing]]) -> list[str]:
    """The class folders that fix the labels, in order."""
    used = {split: [wnid for wnid in classes if wnid] for split, classes in listings.items()}
    train = folder_index.class_folders(folder / "train") if (folder / "train").is_dir() else []
    if not train:
        return sorted({wnid for wnids in used.values() for wnid in wnids})
    for split, wnids in used.items():
        if strange := sorted(set(wnids) - set(train)):
            raise BenchError(
                f"class folder {strange[0]!r} of {split!r} is not in 'train'",
                where=folder / split / strange[0],
                mend="the class folders of train fix the labels: add it there, or remove it here",
            )
    return train if any(used.values()) else []


def _readable(file: Path) -> dict[str, str]:
    """{class folder: readable name} of a ``classes.tsv``; empty where there is none."""
    if not file.is_file():
        return {}
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def without_corrupt(dataset: D, cache: Path) -> D:
    """Leave out what does not decode, with a warning; checked once for each digest.

    Raises:
        BenchError: then nothing would be left, or a file cannot even be read.
    """
    file = cache / "corrupt" / f"{dataset.digest}.json"
    if not file.is_file():
        write_json(file, {"dataset": dataset.name, "corrupt": check_images(dataset, torch.get_num_threads())})
    corrupt: dict[str, str] = dict(read_json(file)["corrupt"])
    if not corrupt:
        return dataset
    if len(corrupt) == len(dataset):
        raise BenchError(f"none of the {len(dataset)} images of {dataset.name} can be decoded", where=file)
    named = ", ".join(f"{i} ({why})" for i, why in list(corrupt.items())[:_NAMED])
    more = f" and {len(corrupt) - _NAMED} more" if len(corrupt) > _NAMED else ""
    warnings.warn(
        f"{dataset.name}: {len(corrupt)} of {len(dataset)} images are corrupt and left out: {named}{more}; see {file}",
        stacklevel=3,
    )
    return dataset.without([position for position, i in enumerate(dataset.ids) if i in corrupt])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
