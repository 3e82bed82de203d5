"""``scenes``: the data set that needs no download.

Small pictures of the 20 PASCAL VOC classes, drawn from their index alone: one main object, which gives the label,
on a ground where it is usually found, sometimes with smaller ones behind it. All are lit from above, stand upright
(tilted by at most 10 degrees) and have canonical parts, so rotation, context, colour and counting can be learned;
backgrounds vary within a class and paint is shared between classes, so colour alone does not give the class away.

Every function here is pure: the same arguments give the same bytes in any process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from bench.data.base import Sample
from bench.data.scenes_draw import GROUNDS_OF, INDOORS, Colour, Dice, draw_place, paste, shadow
from bench.data.scenes_objects import CLASSES, FOOT, SCALE, draw, sprite
from bench.errors import BenchError
from bench.files import canonical, writing_failed

__all__ = [
    "CLASSES", "VERSION", "Box", "Scene", "Scenes", "contact_sheet", "labels_of", "render", "sprite",
    "write_image_folder", "write_voc_devkit",
]  # fmt: skip

VERSION = 1
"""Bump it when a pixel, a label or a box changes: it is part of every digest."""

_LARGEST = 1_000_000


class Box(NamedTuple):
    """The visible extent of an object in pixels: 0-based, all four sides inclusive."""

    label: int
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class Scene:
    """One picture and everything that is known about it."""

    image: np.ndarray
    """uint8 (H, W, 3), RGB."""
    label: int
    """Class index of the main object."""
    boxes: list[Box]
    """The main object first."""
    mask: np.ndarray
    """uint8 (H, W): class index + 1 of the front-most object, 0 where there is none."""
    instances: np.ndarray
    """uint8 (H, W): position in ``boxes`` + 1, 0 where there is none."""
    truncated: list[bool]
    """For each box: part of the object lies outside the picture."""
    shown: list[float]
    """For each box: the share of the object's pixels inside the picture that no other object hides, 0 to 1."""


def labels_of(split: str, size: int, classes: int = 20) -> np.ndarray:
    """The labels of the first ``size`` images, int64 (size,), without rendering.

    They come in blocks of ``classes`` images; each block holds every class once, in an order of its own.
    """
    blocks = [_block(_key(split), number, classes) for number in range(-(-size // classes))]
    return np.array(blocks, dtype=np.int64).reshape(-1)[:size]


def _key(split: str) -> int:
    return zlib.crc32(split.encode())


@functools.lru_cache(maxsize=256)
def _block(key: int, number: int, classes: int) -> tuple[int, ...]:
    # A key of more than 32 bits: no scene draws from this stream.
    order = Dice((classes << 32) + key, number).numbers(classes).argsort(kind="stable")
    return tuple(order.tolist())


class Thing(NamedTuple):
    """Where one object goes: the middle of its foot line and its size, relative to the side."""

    label: int
    seed: int
    x: float
    foot: float
    size: float

    @property
    def flies(self) -> bool:
        return CLASSES[self.label] == "aeroplane"


def render(split: str, index: int, side: int = 64, classes: int = 20) -> Scene:
    """Draw one scene.

    Args:
        split: the stream; each has its own scenes.
        index: position in the stream, 0 or more.
        side: height and width in pixels; the same scene at every side.
        classes: draw only the first so many classes.

    The picture is drawn at twice the side and averaged down.
    """
    return shoot(*stage(split, index, side, classes))


def stage(split: str, index: int, side: int, classes: int) -> tuple[np.ndarray, list[Thing], Colour]:
    """What a scene is made of: the place at twice the side, the objects from front to back, the tint of the hour."""
    label = _block(_key(split), index // classes, classes)[index % classes]
    dice = Dice(_key(split), index)
    ground, horizon, objects = _compose(dice, label, classes)
    place = np.empty((2 * side, 2 * side, 3), np.uint8)
    draw_place(place, dice, ground, horizon)
    return place, objects, dice.pick(_DAYLIGHT)


def shoot(place: np.ndarray, objects: list[Thing], tint: Colour) -> Scene:
    """The scene that they make; draws on the place."""
    layers = [_place(place, thing) for thing in reversed(objects)][::-1]
    image = cv2.resize(place, (len(place) // 2, len(place) // 2), interpolation=cv2.INTER_AREA)
    _daylight(image, tint)
    return _annotate(image, objects, layers)


def _compose(dice: Dice, label: int, classes: int) -> tuple[str, float, list[Thing]]:
    """Ground, horizon, and the objects from front to back."""
    ground = "paper" if dice.chance(0.2) else dice.pick(GROUNDS_OF[CLASSES[label]])
    if CLASSES[label] == "aeroplane":
        horizon = dice.uniform(0.68, 0.86)
    elif ground in INDOORS:
        horizon = dice.uniform(0.56, 0.70)
    else:
        horizon = dice.uniform(0.44, 0.64)
    main = _main_object(dice, label, ground, horizon)
    company = [c for c in range(classes) if ground in ("paper", *GROUNDS_OF[CLASSES[c]])]
    sides = dice.pick(((-1, 1), (1, -1)))[: dice.pick((0, 0, 0, 1, 1, 2, 2, 2))]
    others = [
        _lesser_object(dice, label if dice.chance(0.35) else dice.pick(company), ground, horizon, main, side)
        for side in sides
    ]
    return ground, horizon, [main, *(other for other in others if 0.06 < other.x < 0.94)]


def _main_object(dice: Dice, label: int, ground: str, horizon: float) -> Thing:
    thing = Thing(label, dice.seed(), dice.uniform(0.33, 0.67), 0.0, dice.uniform(0.50, 0.88) / SCALE)
    if thing.flies:
        foot = horizon * dice.uniform(0.82, 1.08)
    elif ground == "track":
        foot = 0.915
    elif ground == "table":
        foot = horizon + (0.97 - horizon) * dice.uniform(0.45, 0.80)
    else:
        foot = max(horizon + 0.22, dice.uniform(0.80, 0.96))
    return thing._replace(foot=foot)


def _lesser_object(dice: Dice, label: int, ground: str, horizon: float, main: Thing, side: int) -> Thing:
    """A smaller object behind the main one, to its left (-1) or right (1)."""
    size = main.size * dice.uniform(0.40, 0.58)
    x = main.x + side * SCALE * (main.size * dice.uniform(0.42, 0.52) + size * 0.2)
    thing = Thing(label, dice.seed(), x, 0.0, size)
    if thing.flies:
        foot = size + dice.uniform(0.0, 0.12)
    elif ground == "track":
        foot = dice.uniform(0.80, 0.84)
    else:
        front = 0.98 if main.flies else main.foot
        foot = horizon + (front - horizon) * dice.uniform(0.30, 0.75)
    return thing._replace(foot=foot)


class _Layer(NamedTuple):
    covered: np.ndarray
    """bool (side, side): the pixels that the object covers, whatever is in front of it."""
    truncated: bool


def _place(canvas: np.ndarray, thing: Thing) -> _Layer:
    """Draw one object and its shadow on the canvas, which has twice the side."""
    side = len(canvas)
    pixels = max(8, round(thing.size * side))
    picture = draw(thing.label, thing.seed, pixels)
    left, top = round(thing.x * side - pixels / 2), round(thing.foot * side - FOOT * pixels)
    feet = np.flatnonzero(picture[int(pixels * (FOOT - 0.1)) :, :, 3].any(0))
    if not thing.flies and len(feet):
        middle, half = (left + (feet[0] + feet[-1]) / 2) / side, (feet[-1] - feet[0]) / 2 / side
        shadow(canvas, middle, thing.foot + 0.01 * thing.size, half * 1.15 + 0.03, 0.085 * thing.size, 0.48)
    alpha = paste(canvas, picture, left, top)
    cut = np.count_nonzero(alpha) < 0.99 * np.count_nonzero(picture[..., 3])
    return _Layer(cv2.resize(alpha, (side // 2, side // 2), interpolation=cv2.INTER_AREA) >= 128, bool(cut))


_DAYLIGHT = ((256, 256, 256), (262, 256, 244), (266, 252, 236), (248, 254, 264), (244, 246, 256), (236, 238, 250))


def _daylight(image: np.ndarray, tint: Colour) -> None:
    """The tint of the hour, and a light that fades a little from the top to the bottom; in place."""
    fade = np.linspace(266, 240, len(image)).astype(np.uint32)[:, None, None]
    image[:] = np.minimum(255, image * (fade * np.array(tint, np.uint32) >> 8) >> 8)


def _annotate(image: np.ndarray, objects: list[Thing], layers: list[_Layer]) -> Scene:
    """Boxes and masks of what is visible; objects without a visible pixel are left out."""
    empty = np.zeros(image.shape[:2], np.uint8)
    scene = Scene(image, objects[0].label, [], empty, empty.copy(), [], [])
    for thing, layer in zip(objects, layers, strict=True):
        visible = layer.covered & (scene.instances == 0)
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        if not len(rows):
            continue
        scene.boxes.append(Box(thing.label, int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])))
        scene.mask[visible] = thing.label + 1
        scene.instances[visible] = len(scene.boxes)
        scene.truncated.append(layer.truncated)
        scene.shown.append(float(np.count_nonzero(visible) / np.count_nonzero(layer.covered)))
    return scene


def contact_sheet(split: str, rows: int, columns: int, side: int = 64, classes: int = 20) -> np.ndarray:
    """The first rows x columns scenes of a split, for looking: uint8 (H, W, 3), white between them."""
    gap = max(2, side // 16)
    pitch = side + gap
    sheet = np.full((rows * pitch + gap, columns * pitch + gap, 3), 255, np.uint8)
    for index in range(rows * columns):
        y, x = gap + index // columns * pitch, gap + index % columns * pitch
        sheet[y : y + side, x : x + side] = render(split, index, side, classes).image
    return sheet


class Scenes:
    """A finite set of scenes as a :class:`bench.data.base.Dataset`.

    Args:
        splits: any names; each is a stream of its own. Images of ``"unlabelled"`` have label -1.
        size: images per split.
        side: pixels.
        classes: use only the first so many classes.
        cache: folder that keeps rendered images, in a file named by the digest, so that only the first epoch
            renders. Any number of processes may read and fill it at once, and may be killed.

    Raises:
        BenchError: an argument is out of range; the cache cannot be written.
    """

    def __init__(
        self, splits: tuple[str, ...], size: int, side: int = 64, classes: int = 20, cache: Path | None = None
    ) -> None:
        check(splits, size, side, classes)
        self._splits = tuple(sorted(splits))
        self._size, self._side, self._number = size, side, classes
        self.name = f"scenes/{'+'.join(self._splits)}"
        self.ids = [f"{split}/{number:06d}" for split in self._splits for number in range(size)]
        self.classes = CLASSES[:classes] if self._splits != ("unlabelled",) else ()
        self.labels = np.concatenate(
            [np.full(size, -1) if split == "unlabelled" else labels_of(split, size, classes) for split in self._splits]
        )
        self.digest = _digest(self._splits, size, side, classes)
        self._cache = PixelCache(cache / f"scenes-{self.digest}.bin", (3, side, side)) if cache is not None else None

    def __len__(self) -> int:
        return len(self._splits) * self._size

    def __getitem__(self, index: int) -> Sample:
        import torch

        if not 0 <= index < len(self):
            raise IndexError(index)
        pixels = self._cache.read(index) if self._cache else None
        if pixels is None:
            split, number = self._splits[index // self._size], index % self._size
            pixels = np.ascontiguousarray(render(split, number, self._side, self._number).image.transpose(2, 0, 1))
            if self._cache:
                self._cache.write(index, pixels)
        return Sample(torch.from_numpy(pixels), index, int(self.labels[index]))


def check(splits: tuple[str, ...], size: int, side: int, classes: int) -> None:
    """Raises BenchError: there can be no such scenes."""
    if not splits or len(set(splits)) != len(splits) or not all(re.fullmatch(r"[a-z0-9]+", s) for s in splits):
        raise BenchError(
            f"scenes cannot have the splits {', '.join(splits) or '(none)'}",
            mend="give different names of lower-case letters and digits, such as train, val, unlabelled",
        )
    for what, value, low, high in (
        ("size", size, 1, _LARGEST), ("side", side, 16, 1024), ("classes", classes, 1, len(CLASSES)),
    ):  # fmt: skip
        if not low <= value <= high:
            raise BenchError(f"scenes cannot have {what} {value}", mend=f"choose {low} to {high}")


def _digest(splits: tuple[str, ...], size: int, side: int, classes: int) -> str:
    what = {"scenes": VERSION, "splits": splits, "size": size, "side": side, "classes": classes}
    return hashlib.sha256(canonical(what).encode()).hexdigest()[:16]


class PixelCache:
    """Images on disk, each behind its checksum.

    An image counts as present only if its checksum is right, so a hole in the file, half a write of a killed
    process and two processes that write the same image at once are all harmless: there is nothing to lock.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._shape = path, shape
        self._record = 4 + math.prod(shape)
        self._file: IO[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def read(self, index: int) -> np.ndarray | None:
        """The image, uint8, or None where it is not there yet."""
        record = os.pread(self._handle(), self._record, index * self._record)
        if len(record) < self._record or record[:4] != _checksum(index, record[4:]):
            return None
        return np.frombuffer(record, np.uint8, offset=4).reshape(self._shape).copy()

    def write(self, index: int, pixels: np.ndarray) -> None:
        """Keep an image."""
        data = pixels.tobytes()
        try:
            os.pwrite(self._handle(), _checksum(index, data) + data, index * self._record)
        except OSError as error:
            raise writing_failed(self._path, error) from error

    def _handle(self) -> int:
        """The open file: opened by the process that uses it, and made on first use."""
        if self._file is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            except OSError as error:
                raise writing_failed(self._path, error) from error
        return self._file.fileno()


def _checksum(index: int, data: bytes) -> bytes:
    return zlib.crc32(data, index + 1).to_bytes(4, "little")


def write_image_folder(folder: Path, splits: tuple[str, ...], size: int, side: int = 64, classes: int = 20) -> None:
    """Write ``<split>/<class>/<number>.png``, and ``unlabelled/<number>.png`` without classes.

    Args:
        folder: must not exist, or be empty; it appears all at once.
        splits: split names, as for :class:`Scenes`.
        size: images per split; at least one of each class.
        side: pixels.
        classes: use only the first so many classes.

    Raises:
        BenchError: the folder is not empty or cannot be written; an argument is out of range.
    """
    check(splits, size, side, classes)
    check_all_classes(size, classes)
    with _new_folder(folder) as new:
        for split in splits:
            names = [""] * size if split == "unlabelled" else [CLASSES[c] for c in labels_of(split, size, classes)]
            for name in set(names):
                (new / split / name).mkdir(parents=True)
            for number, name in enumerate(names):
                image = render(split, number, side, classes).image
                Image.fromarray(image).save(new / split / name / f"{number:06d}.png")


def check_all_classes(size: int, classes: int) -> None:
    """Raises BenchError: too few scenes to show every class."""
    if size < classes:
        raise BenchError(f"{size} scenes do not show all {classes} classes", mend=f"ask for at least {classes}")


def write_voc_devkit(folder: Path, train: int, test: int, side: int = 128) -> None:
    """Write ``VOCdevkit/VOC2007`` under ``folder``, laid out as PASCAL VOC's own, with all 20 classes.

    Every image has boxes (1-based, inclusive) and both segmentations (palette PNG, 255 along the borders).
    A lesser object of which less than 30 % shows, or less than 6 pixels either way, is marked difficult.

    Args:
        folder: must not exist, or be empty; it appears all at once.
        train: images of ``trainval``; about half of them are ``train``, the rest ``val``.
        test: images of ``test``.
        side: pixels.

    Raises:
        BenchError: the folder is not empty or cannot be written; fewer than 20 images in a set.
    """
    for size in (train, test):
        check(("voc",), size, side, len(CLASSES))
        check_all_classes(size, len(CLASSES))
    # Whole blocks of 20 go to train, so that it and val show every class as soon as there are 40 images.
    half = train // 2 if train < 40 else 20 * round(train / 40)
    with _new_folder(folder) as new:
        root = new / "VOCdevkit" / "VOC2007"
        for name in (
            "JPEGImages",
            "Annotations",
            "SegmentationClass",
            "SegmentationObject",
            "ImageSets/Main",
            "ImageSets/Segmentation",
        ):
            (root / name).mkdir(parents=True)
        found = [_write_voc_image(root, f"{k + 1:06d}", render("trainval", k, side)) for k in range(train)]
        tested = [_write_voc_image(root, f"{train + k + 1:06d}", render("test", k, side)) for k in range(test)]
        sets = {"train": found[:half], "val": found[half:], "trainval": found, "test": tested}
        for split, images in sets.items():
            _write_voc_sets(root / "ImageSets", split, images)


def with_borders(scene: Scene, mask: np.ndarray) -> np.ndarray:
    """The scene's mask, class or instance, with 255 along the borders of its objects: uint8 (H, W)."""
    reach = max(1, len(mask) // 128)
    border = cv2.morphologyEx(scene.instances, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8), iterations=reach)
    return np.where(border, np.uint8(255), mask)


def difficult_boxes(scene: Scene) -> list[bool]:
    """For each box, whether VOC would mark it so: less than 30 % shows, or less than 6 pixels either way.

    Never the main object, so that every class counts in every whole block of scenes.
    """
    return [
        number > 0 and (shown < 0.3 or min(box.x2 - box.x1, box.y2 - box.y1) < 5)
        for number, (box, shown) in enumerate(zip(scene.boxes, scene.shown, strict=True))
    ]


class _VocImage(NamedTuple):
    """What the image sets say about one image."""

    name: str
    easy: set[int]
    """Classes with an object that is not difficult."""
    difficult: set[int]
    """Classes of which all objects are difficult."""


def _write_voc_image(root: Path, name: str, scene: Scene) -> _VocImage:
    Image.fromarray(scene.image).save(root / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
    for kind, mask in (("SegmentationClass", scene.mask), ("SegmentationObject", scene.instances)):
        picture = Image.fromarray(with_borders(scene, mask))
        picture.putpalette(_voc_palette())
        picture.save(root / kind / f"{name}.png")
    hard = difficult_boxes(scene)
    (root / "Annotations" / f"{name}.xml").write_text(_voc_xml(name, scene, hard), encoding="utf-8")
    easy = {box.label for box, difficult in zip(scene.boxes, hard, strict=True) if not difficult}
    return _VocImage(name, easy, {box.label for box in scene.boxes} - easy)


def _voc_xml(name: str, scene: Scene, hard: list[bool]) -> str:
    height, width = scene.mask.shape
    lines = [
        "<annotation>", "<folder>VOC2007</folder>", f"<filename>{name}.jpg</filename>",
        "<source><database>scenes</database></source>",
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>", "<segmented>1</segmented>",
    ]  # fmt: skip
    for box, cut, shown, difficult in zip(scene.boxes, scene.truncated, scene.shown, hard, strict=True):
        corners = {"xmin": box.x1, "ymin": box.y1, "xmax": box.x2, "ymax": box.y2}
        lines += [
            f"<object><name>{CLASSES[box.label]}</name><pose>Unspecified</pose><truncated>{cut:d}</truncated>"
            f"<occluded>{shown < 0.95:d}</occluded><difficult>{difficult:d}</difficult><bndbox>"
            + "".join(f"<{corner}>{pixel + 1}</{corner}>" for corner, pixel in corners.items())
            + "</bndbox></object>"
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _write_voc_sets(folder: Path, split: str, images: list[_VocImage]) -> None:
    """The list of names, and for each class 1 (there), 0 (there, but difficult) or -1."""
    names = "".join(f"{image.name}\n" for image in images)
    (folder / "Segmentation" / f"{split}.txt").write_text(names, encoding="utf-8")
    (folder / "Main" / f"{split}.txt").write_text(names, encoding="utf-8")
    for label, class_name in enumerate(CLASSES):
        marks = [(image.name, 1 if label in image.easy else 0 if label in image.difficult else -1) for image in images]
        text = "".join(f"{name} {mark:2d}\n" for name, mark in marks)
        (folder / "Main" / f"{class_name}_{split}.txt").write_text(text, encoding="utf-8")


def _voc_palette() -> list[int]:
    """VOC's colour map: the bits of the index, dealt to red, green and blue from the highest down."""
    return [
        sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3 if channel < 2 else 2))
        for index in range(256)
        for channel in range(3)
    ]


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill; on a clean exit it becomes ``folder``, otherwise it is gone."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BenchError("there is something already", where=folder, mend="name a folder that is new or empty")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
            new = Path(beside) / "new"
            new.mkdir()
            yield new
            new.rename(folder)
    except OSError as error:
        raise writing_failed(folder, error) from error
