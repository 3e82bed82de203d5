"""``scenes`` in motion: every scene is the first frame of a clip in which what is mobile moves and the camera pans.

Animals, people and vehicles are mobile; furniture, plants and bottles stand still, as everything else. So what moves
can be told from a single frame by what it is, as in the world. Shadows move with their objects.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from bench.data.base import Sample
from bench.data.scenes import VERSION as SCENES_VERSION
from bench.data.scenes import PixelCache, Scene, Scenes, shoot, stage
from bench.data.scenes_draw import Dice
from bench.data.scenes_objects import CLASSES
from bench.errors import BenchError
from bench.files import canonical

VERSION = 1
"""Bump it when a pixel of a later frame changes: it is part of every digest."""

LONGEST = 16
"""Frames of a clip, at most."""
MOBILE = tuple(name not in {"bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"} for name in CLASSES)
"""By class: whether it moves."""
SPEEDS = (0.03, 0.08)
"""Of what is mobile: the share of the side that it moves a frame."""
PAN = 0.012
"""The camera's largest pan a frame, along each axis."""


def film(split: str, index: int, frames: int, side: int = 64, classes: int = 20) -> list[Scene]:
    """The scene that ``render`` gives for these arguments, then what becomes of it, a frame each.

    Each mobile object has a velocity of its own, mostly sideways.
    """
    place, objects, tint = stage(split, index, side, classes)
    dice = Dice(zlib.crc32(f"{split}/motion".encode()), index)
    pan = np.array([dice.uniform(-PAN, PAN), dice.uniform(-PAN, PAN)])
    ways = [pan + _velocity(dice) if MOBILE[thing.label] else pan for thing in objects]
    scenes = []
    for time in range(frames):
        moved = [
            thing._replace(x=thing.x + time * float(way[0]), foot=thing.foot + time * float(way[1]))
            for thing, way in zip(objects, ways, strict=True)
        ]
        scenes.append(shoot(_panned(place, time * pan), moved, tint))
    return scenes


class MovingScenes(Scenes):
    """A finite set of scenes whose samples have clips; the image is the first frame. Satisfies ``Dataset``.

    Args:
        frames: of a clip, 2 to ``LONGEST``. The rest as of :class:`~bench.data.scenes.Scenes`.

    Raises:
        BenchError: an argument is out of range; the cache cannot be written.
    """

    def __init__(
        self,
        splits: tuple[str, ...],
        size: int,
        frames: int,
        side: int = 64,
        classes: int = 20,
        cache: Path | None = None,
    ) -> None:
        super().__init__(splits, size, side, classes)
        check_frames("scenes", frames)
        self._frames = frames
        what = {"motion": VERSION, "scenes": SCENES_VERSION, "of": self.digest, "frames": frames}
        self.digest = hashlib.sha256(canonical(what).encode()).hexdigest()[:16]
        shape = (frames, 3, side, side)
        self._clips = PixelCache(cache / f"scenes-{self.digest}.bin", shape) if cache is not None else None

    def __getitem__(self, index: int) -> Sample:
        import torch

        if not 0 <= index < len(self):
            raise IndexError(index)
        pixels = self._clips.read(index) if self._clips else None
        if pixels is None:
            split, number = self._splits[index // self._size], index % self._size
            scenes = film(split, number, self._frames, self._side, self._number)
            pixels = np.stack([scene.image.transpose(2, 0, 1) for scene in scenes])
            if self._clips:
                self._clips.write(index, pixels)
        clip = torch.from_numpy(pixels)
        return Sample(clip[0], index, int(self.labels[index]), clip)


def check_frames(name: str, frames: int) -> None:
    """Raises BenchError: generated clips cannot have so many frames."""
    if not (isinstance(frames, int) and 2 <= frames <= LONGEST):
        raise BenchError(f"clips of {name} cannot have {frames!r} frames", mend=f"choose 2 to {LONGEST}")


def _velocity(dice: Dice) -> np.ndarray:
    speed, angle = dice.uniform(*SPEEDS), dice.uniform(-0.5, 0.5) + dice.pick((0.0, math.pi))
    return np.array([speed * math.cos(angle), speed * math.sin(angle)])


def _panned(place: np.ndarray, by: np.ndarray) -> np.ndarray:
    """A copy of the place, moved right and down by that share of its side in whole pixels; its rim is repeated."""
    side = len(place)
    right, down = np.rint(by * side).astype(int).tolist()
    rows, columns = ((np.arange(side) - shift).clip(0, side - 1) for shift in (down, right))
    return place[rows[:, None], columns]
