"""``bench data prepare``: fetch what may be fetched, lay it out; otherwise say what to do by hand.

Nothing else writes under the data root. A data set appears there by one rename, when it is complete.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from bench.data import catalog
from bench.data.folder_index import is_image
from bench.errors import BenchError
from bench.files import writing_failed

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/"
VOC_ARCHIVES = {
    "voc2007": {
        "voc2007/VOCtrainval_06-Nov-2007.tar": "c52e279531787c972589f7e41ab4ae64",
        "voc2007/VOCtest_06-Nov-2007.tar": "b6e924de25625d8de591ea690078ad9f",
    },
    "voc2012": {"voc2012/VOCtrainval_11-May-2012.tar": "6cd6e144f989b92b3379bac3b3de84fd"},
}
"""Data set -> path under ``VOC_URL`` -> md5, as torchvision has them."""

TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
"""As commonly published; its authors publish none."""

Progress = Callable[[int, int | None], None]
"""Called with (bytes there, bytes in all or None where the server does not say)."""

_CHUNK = 1 << 20
_TIMEOUT = 60.0


def prepare(name: str, root: Path, cache: Path, progress: Progress = lambda done, of: None) -> str:
    """Put a data set under the data root; one line about what is there now.

    Downloads are kept under ``cache`` until they are unpacked; a broken one is taken up where it was.

    Raises:
        BenchError: unknown data set; its licence forbids fetching it (with the steps by hand); something else is in
            its place; the download or the disk failed.
    """
    known = catalog.card(name)
    if known.open is not None and known.count is None:
        return f"{name} needs no preparation: {known.layout}"
    target = root / name
    states = {found.state for found in catalog.status(root, cache, name) if found.split in known.splits}
    if states == {"complete"}:
        return f"{name} is complete: {target}"
    if name not in _MAKERS:
        raise BenchError(f"{name} cannot be fetched for you", mend=known.steps.format(folder=target))
    if target.exists():
        raise BenchError(f"{name} is there but not complete", where=target, mend="move it away, then run this again")
    _MAKERS[name](root, cache, progress)
    return f"{name} is ready: {target}"


def download(url: str, target: Path, md5: str, progress: Progress = lambda done, of: None) -> None:
    """Fetch ``url`` into ``target`` and check it; a ``target`` that is there already is only checked.

    What has come so far stays in ``<target>.part``, and the next call asks the server for the rest.

    Raises:
        BenchError: the server cannot be reached or refuses; the transfer broke off; the file is not the one
            expected (what was downloaded is then removed); it cannot be written.
    """
    if target.is_file():
        if _md5(target) != md5:
            raise BenchError(f"not the file of {url}: its md5 is not {md5}", where=target, mend="remove it")
        return
    part = target.with_name(f"{target.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, target, progress)
        if _md5(part) != md5:
            part.unlink()
            raise BenchError(
                f"the download is not the file expected: its md5 is not {md5}", where=url, mend="try again"
            )
        part.replace(target)
    except OSError as error:
        raise writing_failed(part, error) from error


def lay_out_tiny_imagenet(archive: Path, folder: Path) -> None:
    """Unpack ``tiny-imagenet-200.zip`` into the new ``folder``: train, val, unlabelled, ``classes.tsv``.

    Raises:
        BenchError: not that archive, or a damaged one; the folder cannot be written.
    """
    with _new_folder(folder) as partial:
        try:
            with zipfile.ZipFile(archive) as zipped:
                _unpack_tiny_imagenet(zipped, partial)
        except (zipfile.BadZipFile, LookupError, ValueError) as error:
            raise BenchError(f"not the archive of Tiny ImageNet: {error}", where=archive, mend="remove it") from error


def tiny_imagenet_50(wnids: list[str]) -> list[str]:
    """The classes of ``tiny-imagenet-50``: every 4th of the sorted wnids of ``tiny-imagenet``."""
    return sorted(wnids)[::4]


def select_tiny_imagenet_50(source: Path, target: Path) -> None:
    """Copy ``tiny-imagenet-50`` out of ``tiny-imagenet`` into the new folder ``target``.

    Every 4th of the sorted classes; of each the first 200 training images by number and all validation images;
    all unlabelled images.

    Raises:
        BenchError: the folder cannot be written.
    """
    with _new_folder(target) as partial:
        chosen = tiny_imagenet_50([folder.name for folder in (source / "train").iterdir()])
        for wnid in chosen:
            images = sorted((source / "train" / wnid).iterdir(), key=_number)
            _copy(images[:200], partial / "train" / wnid)
            _copy((source / "val" / wnid).iterdir(), partial / "val" / wnid)
        _copy((source / "unlabelled").iterdir(), partial / "unlabelled")
        rows = (source / "classes.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if row.partition("\t")[0] in chosen]
        (partial / "classes.tsv").write_text("".join(kept), encoding="utf-8")


def lay_out_voc(archives: list[Path], folder: Path, year: str) -> None:
    """Unpack devkits into the new ``folder``: ``VOCdevkit/<year>``, such as VOC2007.

    Raises:
        BenchError: not archives of that devkit, or damaged ones; the folder cannot be written.
    """
    with _new_folder(folder) as partial:
        for archive in archives:
            try:
                with tarfile.open(archive) as tar:
                    _unpack_voc(tar, partial, year)
                if not (partial / "VOCdevkit" / year / "JPEGImages").is_dir():
                    raise ValueError("it has no images")
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise BenchError(f"not an archive of {year}: {error}", where=archive, mend="remove it") from error


def _make_tiny_imagenet(root: Path, cache: Path, progress: Progress) -> None:
    archive = cache / "downloads" / "tiny-imagenet-200.zip"
    download(TINY_IMAGENET_URL, archive, TINY_IMAGENET_MD5, progress)
    lay_out_tiny_imagenet(archive, root / "tiny-imagenet")
    archive.unlink()


def _make_tiny_imagenet_50(root: Path, cache: Path, progress: Progress) -> None:
    prepare("tiny-imagenet", root, cache, progress)
    select_tiny_imagenet_50(root / "tiny-imagenet", root / "tiny-imagenet-50")


def _make_voc(name: str, root: Path, cache: Path, progress: Progress) -> None:
    archives = []
    for path, md5 in VOC_ARCHIVES[name].items():
        archives.append(cache / "downloads" / PurePosixPath(path).name)
        download(VOC_URL + path, archives[-1], md5, progress)
    lay_out_voc(archives, root / name, name.upper())
    for archive in archives:
        archive.unlink()


_MAKERS: dict[str, Callable[[Path, Path, Progress], None]] = {
    "tiny-imagenet": _make_tiny_imagenet,
    "tiny-imagenet-50": _make_tiny_imagenet_50,
    **{name: functools.partial(_make_voc, name) for name in VOC_ARCHIVES},
}


def _fetch(url: str, part: Path, target: Path, progress: Progress) -> None:
    """Append to ``part`` what it lacks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    by_hand = f"run this again, or download it by other means to {target}"
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is all there is
            return
        raise BenchError(f"the server answers {error.code} {error.reason}", where=url, mend=by_hand) from error
    except (HTTPException, OSError) as error:
        raise BenchError(f"the server cannot be reached: {error}", where=url, mend=by_hand) from error
    with response:
        if response.status != 206:  # it sends the whole, whatever was asked for
            have = 0
        length = response.headers["Content-Length"]
        size = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            while chunk := _receive(response):
                file.write(chunk)
                have += len(chunk)
                progress(have, size)
    if size is not None and have < size:
        raise _broke_off(url, f"{have / 1e6:.1f} of {size / 1e6:.1f} MB came")


def _receive(response: HTTPResponse) -> bytes:
    """The next bytes; none at the end."""
    try:
        return response.read(_CHUNK)
    except (HTTPException, OSError) as error:
        raise _broke_off(response.url, str(error)) from error


def _broke_off(url: str, why: str) -> BenchError:
    return BenchError(f"the transfer broke off: {why}", where=url, mend="run this again: it goes on from there")


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` to fill; renamed to it on a clean exit, removed on any other."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(target)
    except OSError as error:
        raise writing_failed(Path(error.filename or target), error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_tiny_imagenet(zipped: zipfile.ZipFile, folder: Path) -> None:
    top = "tiny-imagenet-200"
    rows = zipped.read(f"{top}/val/val_annotations.txt").decode().splitlines()
    wnid_of = {row.split("\t")[0]: row.split("\t")[1] for row in rows}
    wnids = set()
    for name in filter(is_image, zipped.namelist()):
        match PurePosixPath(name).parts:
            case (_, "train", wnid, "images", image):
                wnids.add(wnid)
                place = folder / "train" / wnid / image
            case (_, "val", "images", image):
                place = folder / "val" / wnid_of[image] / image
            case (_, "test", "images", image):
                place = folder / "unlabelled" / image
            case _:
                raise ValueError(f"{name!r} is in an unknown place")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(zipped.read(name))
    words = (row.split("\t") for row in zipped.read(f"{top}/words.txt").decode().splitlines())
    classes = sorted((wnid, names.split(",")[0]) for wnid, names in words if wnid in wnids)
    (folder / "classes.tsv").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in classes), encoding="utf-8")


def _unpack_voc(tar: tarfile.TarFile, folder: Path, year: str) -> None:
    """Files under ``VOCdevkit/<year>``, nothing else; links are not followed."""
    for member in tar:
        parts = PurePosixPath(member.name).parts
        if parts[:2] != ("VOCdevkit", year)[: len(parts)] or ".." in parts:
            raise ValueError(f"{member.name!r} is in an unknown place")
        if member.isdir():
            continue
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            raise ValueError(f"{member.name!r} is no file")
        place = folder.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        with content, place.open("wb") as out:
            shutil.copyfileobj(content, out)


def _number(image: Path) -> int:
    """12 of ``n01443537_12.JPEG``."""
    return int(image.stem.rpartition("_")[2])


def _copy(images: Iterator[Path] | list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for image in images:
        shutil.copyfile(image, folder / image.name)
