"""Which data sets are known, where they lie, and how to open them. Importing this imports no torch.

A data set of images lies as ``<data root>/<name>/<split>/<class folder>/<image>``, or without class folders where
a split is unlabelled. A third party adds one with an entry point of the group ``bench.datasets`` whose name is the
data set's and whose value is a :class:`DataCard`. Any other folder of that layout is opened by its path, a name
that holds a "/" or starts with "."; with the option ``frames``, as a folder of clips (:mod:`bench.data.clips`).
"""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.data import folder_index, pack, voc_lists
from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.data.base import Dataset


@dataclass(frozen=True)
class DataCard:
    """What is known of a data set before it is opened."""

    title: str
    citation: str | None
    """A key of ``tables/references.bib``."""
    licence: str
    splits: dict[str, int]
    """Each split and how many images it has (0: any number); empty where any may be asked for."""
    classes: int
    layout: str
    """What lies where under the data set's folder."""
    fetchable: bool = False
    """Whether ``bench data prepare`` fetches it."""
    steps: str = ""
    """Otherwise: how to get it by hand. ``{folder}`` stands for the data set's folder."""
    open: Callable[..., Dataset] | None = None
    """``open(splits, root=, cache=, **options)`` for what is not in folders of images; None: it is."""
    count: Callable[[Path, str], int] | None = None
    """``count(folder, split)``: images of a split, 0 where it is missing, for files in another layout."""
    extra: dict[str, int] = field(default_factory=dict)
    """Further splits: of other lists, or from elsewhere, so that they may be missing."""
    synthetic_motion: bool = False
    """Whether the motion in its clips is made by a program: what was trained on them is not ranked."""


@dataclass(frozen=True)
class Found:
    """What was found of one split."""

    dataset: str
    split: str
    state: Literal["complete", "incomplete", "missing"]
    images: int | None
    """None: generated, as many as are asked for."""
    expected: int | None
    classes: int
    folder: str
    mend: str
    packed: str = ""
    """The geometries of its packed stores."""


def names() -> list[str]:
    """Every known data set, sorted.

    Raises:
        BenchError: two go by the same name.
    """
    return sorted([*_BUILT_IN, *_third_parties()])


def card(name: str) -> DataCard:
    """What is known of a data set.

    Raises:
        BenchError: there is none of that name (with the nearest names), or a third party's does not load.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    points = _third_parties()
    if name not in points:
        raise did_you_mean("data set", name, names())
    try:
        loaded = points[name].load()
    except (ImportError, AttributeError) as error:
        raise BenchError(f"data set {name!r} does not load: {error}", where=points[name].value) from error
    if not isinstance(loaded, DataCard):
        raise BenchError(f"data set {name!r} is no DataCard", where=points[name].value)
    return loaded


def has_synthetic_motion(name: str) -> bool:
    """Whether a program moves what moves in the data set's clips; not known of one that is named by its path."""
    return not _is_path(name) and card(name).synthetic_motion


def open_dataset(name: str, splits: tuple[str, ...], *, root: Path, cache: Path, **options: Any) -> Dataset:
    """The splits of a data set as one, in the order of their ids.

    ``options``: ``skip_corrupt`` for folders of images; that, ``frames``, ``step`` and ``moments`` for clips; ``size``,
    ``side``, ``classes`` and ``frames`` for ``scenes``, the first two for ``scenes-voc``; ``over``, ``frames`` and
    those of the data set under it for ``moving``; ``lists`` for PASCAL VOC, and ``also``, another devkit of which the
    same splits are taken too.

    Raises:
        BenchError: unknown data set, split or option; it is not under the data root, is empty, or cannot be read.
    """
    if not splits or len(set(splits)) < len(splits):
        raise BenchError(f"splits must be named, each once, not {list(splits)}", where=name)
    if _is_path(name):
        folder = Path(name).expanduser()
        there = folder_index.class_folders(folder)
        for split in splits:
            if split not in there:
                raise BenchError(f"no split {split!r}", where=folder, mend=f"it has: {', '.join(there) or 'none'}")
        opened = _open_clips if "frames" in options else _open_images
        return opened(folder.resolve().name, folder, splits, cache, options)
    if name not in names() and (root / name).is_dir():
        raise BenchError(f"unknown data set {name!r}", mend=f"open it by its path: {root / name}")
    known = card(name)
    for split in splits:
        if known.splits and split not in {**known.splits, **known.extra}:
            raise did_you_mean(f"split of {name}", split, [*known.splits, *known.extra])
    if known.open is not None:
        return known.open(splits, root=root, cache=cache, **options)
    _require(name, known, splits, root)
    dataset = _open_images(name, root / name, splits, cache, options)
    _warn_where_incomplete(name, known, dataset)
    return dataset


def status(root: Path, cache: Path, name: str | None = None) -> list[Found]:
    """What was found of every split of ``name``, or of every known data set; files are counted, not opened."""
    asked = names() if name is None else [name]
    stores = pack.headers(cache)
    found = [split for each in asked for split in _found(each, card(each), root, cache)]
    return [replace(split, packed=_packed(split, stores)) for split in found]


def splits_there(name: str, root: Path) -> tuple[str, ...]:
    """The splits of a data set of image files that lie under the data root; ``name`` may be a path.

    Raises:
        BenchError: unknown data set, one without image files, or there are none.
    """
    if _is_path(name):
        folder = Path(name).expanduser()
        if there := tuple(folder_index.class_folders(folder)):
            return there
        raise BenchError("no splits", where=folder, mend="a data set has a folder for each split, such as train")
    known = card(name)
    if known.count is not None:
        raise BenchError(f"{name} is no folders of images", where=known.layout)
    if known.open is not None:
        raise BenchError(f"{name} has no image files", where=known.layout)
    there = tuple(split for split in known.splits if (root / name / split).is_dir())
    _require(name, known, there or tuple(known.splits), root)
    return there


def annotated_splits(name: str, root: Path) -> tuple[str, ...]:
    """The splits of a devkit's ``ImageSets/Main`` that are there.

    Raises:
        BenchError: unknown data set, no devkit, or there are none.
    """
    known = card(name)
    if known.count is None:
        raise BenchError(f"{name} is no devkit of PASCAL VOC", where=known.layout)
    there = tuple(split for split in known.splits if known.count(root / name, split))
    if not there:
        raise BenchError(f"the data root has no {name}", where=root / name, mend=_how_to_get(name, known))
    return there


def _packed(found: Found, stores: list[dict[str, Any]]) -> str:
    """Such as ``short256-bilinear, 336 GB``; the images of a stale store are no longer those of the split."""
    return "; ".join(
        f"{pack.Geometry(**store['geometry'])}, {store['bytes'] / 1e9:.3g} GB"
        + ("" if store["images"] == found.images else ", stale")
        for store in stores
        if store["dataset"] == f"{found.dataset}/{found.split}"
    )


def _found(name: str, known: DataCard, root: Path, cache: Path) -> list[Found]:
    if known.count is not None:
        found = [_counted(name, split, known, root) for split in [*known.splits, *known.extra]]
        return [split for split in found if split.split in known.splits or split.images]
    if known.open is not None:
        return [Found(name, "any", "complete", None, None, known.classes, "", "")]
    return [_found_split(name, split, known, root, cache) for split in known.splits]


def _counted(name: str, split: str, known: DataCard, root: Path) -> Found:
    assert known.count is not None
    images, expected = known.count(root / name, split), {**known.splits, **known.extra}[split] or None
    state: Literal["complete", "incomplete", "missing"] = (
        "complete" if images and images == (expected or images) else "incomplete" if images else "missing"
    )
    mend = "" if state == "complete" else _how_to_get(name, known)
    return Found(name, split, state, images, expected, known.classes if images else 0, str(root / name), mend)


def _found_split(name: str, split: str, known: DataCard, root: Path, cache: Path) -> Found:
    folder, expected = root / name / split, known.splits[split]
    get = _how_to_get(name, known)
    if known.fetchable and (root / name).exists():
        get = f"move {root / name} away, then {get}"
    if not folder.is_dir():
        return Found(name, split, "missing", 0, expected, 0, str(folder), get)
    try:
        images, classes = folder_index.count(folder, cache)
    except BenchError as error:
        return Found(name, split, "incomplete", 0, expected, 0, str(folder), str(error))
    if images == expected and classes in (0, known.classes):
        return Found(name, split, "complete", images, expected, classes, str(folder), "")
    return Found(name, split, "incomplete", images, expected, classes, str(folder), get)


def _open_images(name: str, folder: Path, splits: tuple[str, ...], cache: Path, options: dict[str, Any]) -> Dataset:
    from bench.data.images import open_images

    _refuse_others(name, options, ("skip_corrupt",))
    return open_images(name, folder, splits, cache, **options)


def _open_clips(name: str, folder: Path, splits: tuple[str, ...], cache: Path, options: dict[str, Any]) -> Dataset:
    from bench.data.clips import open_clips

    _refuse_others(name, options, ("frames", "step", "moments", "skip_corrupt"))
    return open_clips(name, folder, splits, cache, **options)


def _refuse_others(name: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            raise did_you_mean(f"option of {name}", option, list(known))


def _require(name: str, known: DataCard, splits: tuple[str, ...], root: Path) -> None:
    """Raises BenchError: the root, the data set's folder or a split's is not there."""
    get = _how_to_get(name, known)
    if not root.is_dir():
        raise BenchError("there is no such data root", where=root, mend=f"pass --data or set BENCH_DATA, or {get}")
    if not (root / name).is_dir():
        raise BenchError(f"the data root has no {name}", where=root / name, mend=get)
    for split in splits:
        if not (root / name / split).is_dir():
            raise BenchError(f"{name} lacks its split {split!r}", where=root / name / split, mend=get)


def _how_to_get(name: str, known: DataCard) -> str:
    return f"run: bench data prepare {name}" + ("" if known.fetchable else ", which says what to do by hand")


def _warn_where_incomplete(name: str, known: DataCard, dataset: Dataset) -> None:
    counts = Counter(image.partition("/")[0] for image in dataset.ids)
    for split, images in counts.items():
        if images != known.splits[split]:
            warnings.warn(f"{name}/{split} has {images:,} images instead of {known.splits[split]:,}", stacklevel=3)


def _is_path(name: str) -> bool:
    return "/" in name or name.startswith(".")


def _third_parties() -> dict[str, importlib.metadata.EntryPoint]:
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group="bench.datasets"):
        if point.name in found or point.name in _BUILT_IN:
            raise BenchError(
                f"two data sets are called {point.name!r}", where=point.value, mend="rename or uninstall one of them"
            )
        found[point.name] = point
    return found


def _open_scenes(splits: tuple[str, ...], *, root: Path, cache: Path, **options: Any) -> Dataset:
    from bench.data.scenes import Scenes
    from bench.data.scenes_motion import MovingScenes

    _refuse_others("scenes", options, ("size", "side", "classes", "frames"))
    if "size" not in options:
        raise BenchError("scenes need the option 'size'", mend="say how many images each split has, size = 1000")
    return (MovingScenes if "frames" in options else Scenes)(splits, **options, cache=cache / "scenes")


def _open_moving(
    splits: tuple[str, ...], *, root: Path, cache: Path, over: str = "", frames: int = 2, **options: Any
) -> Dataset:
    from bench.data.moving import Moving

    if not (isinstance(over, str) and over):
        raise BenchError("moving needs the option 'over'", mend='name a data set of images, over = "tiny-imagenet-50"')
    return Moving(open_dataset(over, splits, root=root, cache=cache, **options), frames)


def _open_yfcc_clips(splits: tuple[str, ...], *, root: Path, cache: Path, **options: Any) -> Dataset:
    folder = root / "yfcc-clips"
    for split in splits:
        if not (folder / split).is_dir():
            get = _how_to_get("yfcc-clips", card("yfcc-clips"))
            raise BenchError(f"the data root has no {split!r} of yfcc-clips", where=folder / split, mend=get)
    return _open_clips("yfcc-clips", folder, splits, cache, options)


def _count_clips(folder: Path, split: str) -> int:
    """Clips of a split: its folders and videos."""
    return sum(1 for _ in folder_index.scan(folder / split)) if (folder / split).is_dir() else 0


def _open_scenes_voc(splits: tuple[str, ...], *, root: Path, cache: Path, **options: Any) -> Dataset:
    from bench.data.scenes_voc import ScenesVoc

    _refuse_others("scenes-voc", options, ("size", "side"))
    if "size" not in options:
        raise BenchError("scenes-voc needs the option 'size'", mend="say how many images each split has, size = 100")
    return ScenesVoc(splits, **options, cache=cache / "scenes")


def _open_voc(name: str, year: str, splits: tuple[str, ...], *, root: Path, cache: Path, **options: Any) -> Dataset:
    from bench.data.annotation import AnnotatedDataset
    from bench.data.joined import Joined
    from bench.data.voc import Voc

    _refuse_others(name, options, ("lists", "also"))
    if also := options.pop("also", None):
        others = [key for key, known in _BUILT_IN.items() if known.layout.startswith("VOCdevkit") and key != name]
        if also not in others:
            raise did_you_mean(f"devkit beside {name}", str(also), others)
        parts = [open_dataset(key, splits, root=root, cache=cache, **options) for key in (name, also)]
        return Joined([part for part in parts if isinstance(part, AnnotatedDataset)])
    if not (root / name).is_dir():
        raise BenchError(f"the data root has no {name}", where=root / name, mend=_how_to_get(name, card(name)))
    return Voc(name, root / name, year, splits, cache, **options)


def _devkit(name: str, year: str, splits: dict[str, int], **more: Any) -> DataCard:
    return DataCard(
        citation="everingham2010pascal",
        licence="photographs from Flickr, under Flickr's terms of use",
        splits=splits,
        classes=20,
        layout=f"VOCdevkit/{year} with JPEGImages, Annotations, ImageSets and SegmentationClass",
        open=functools.partial(_open_voc, name, year),
        count=functools.partial(voc_lists.count, year),
        **more,
    )


_IMAGENET_TERMS = "ImageNet's terms: research and education, not commercial; no redistribution"

_BUILT_IN = {
    "imagenet": DataCard(
        title="ImageNet (ILSVRC 2012)",
        citation="russakovsky2015imagenet",
        licence=_IMAGENET_TERMS,
        splits={"train": 1_281_167, "val": 50_000},
        classes=1000,
        layout="train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, 1,000 class folders each",
        steps="accept the terms at https://image-net.org/download-images; put ILSVRC2012_img_train.tar, "
        "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into {folder}; then run: python -c "
        "\"from torchvision.datasets import ImageNet; [ImageNet('{folder}', s) for s in ('train', 'val')]\" "
        "which checks and unpacks them as {folder}/train/<wnid>/*.JPEG (1,281,167 images) and "
        "{folder}/val/<wnid>/*.JPEG (50,000)",
    ),
    "tiny-imagenet": DataCard(
        title="Tiny ImageNet (64 x 64 pixels)",
        citation="le2015tiny",
        licence=_IMAGENET_TERMS,
        splits={"train": 100_000, "val": 10_000, "unlabelled": 10_000},
        classes=200,
        layout="train/<wnid>/*.JPEG, val/<wnid>/*.JPEG, unlabelled/*.JPEG (the test images), classes.tsv",
        fetchable=True,
    ),
    "tiny-imagenet-50": DataCard(
        title="Tiny ImageNet, 50 classes",
        citation="le2015tiny",
        licence=_IMAGENET_TERMS,
        splits={"train": 10_000, "val": 2_500, "unlabelled": 10_000},
        classes=50,
        layout="as tiny-imagenet: every 4th wnid, its first 200 training images, all else of it",
        fetchable=True,
    ),
    "scenes": DataCard(
        title="Scenes (generated)",
        citation=None,
        licence="Apache-2.0, generated by this project",
        splits={},
        classes=20,
        layout="no files: drawn as they are asked for",
        open=_open_scenes,
        synthetic_motion=True,
    ),
    "moving": DataCard(
        title="Objects that move over images (generated)",
        citation=None,
        licence="that of the images; the objects Apache-2.0, generated by this project",
        splits={},
        classes=0,
        layout="no files: drawn over the images of the data set that the option 'over' names",
        open=_open_moving,
        synthetic_motion=True,
    ),
    "yfcc-clips": DataCard(
        title="Clips of YFCC100M",
        citation="thomee2016yfcc100m",
        licence="Creative Commons, another for each video",
        splits={"train": 0, "heldout": 0},
        classes=0,
        layout="train/<video>/<frame>.jpg or train/<video>.mp4, and heldout likewise",
        open=_open_yfcc_clips,
        count=_count_clips,
        steps="ask for YFCC100M at https://multimediacommons.org; choose videos (Pathak et al. 2017 took 205,000) and "
        "put them into {folder}/train, and a few hundred others into {folder}/heldout; or their frames, a folder for "
        "each: ffmpeg -i VIDEO -vf scale=-2:256 {folder}/train/NAME/%05d.jpg",
    ),
    "scenes-voc": DataCard(
        title="Scenes with boxes and masks (generated)",
        citation=None,
        licence="Apache-2.0, generated by this project",
        splits={},
        classes=20,
        layout="no files: drawn as they are asked for",
        open=_open_scenes_voc,
    ),
    "voc2007": _devkit(
        "voc2007",
        "VOC2007",
        {"train": 2_501, "val": 2_510, "trainval": 5_011, "test": 4_952},
        title="PASCAL VOC 2007",
        fetchable=True,
    ),
    "voc2012": _devkit(
        "voc2012",
        "VOC2012",
        {"train": 5_717, "val": 5_823, "trainval": 11_540},
        title="PASCAL VOC 2012",
        extra={"sbd-train": 8_498, "sbd-val": 2_857, "trainaug": 10_582, "seg11valid": 736},
        fetchable=True,
    ),
    "voc-mini": _devkit(
        "voc-mini",
        "VOC2012",
        {"trainval": 535, "test": 545},
        title="1,080 images of PASCAL VOC 2012 in splits of our own",
        extra={"train": 535, "val": 545},
        steps="it is a selection of this project's own for its tests and is not distributed; a devkit of any such "
        "images does: {folder}/VOCdevkit/VOC2012",
    ),
}
