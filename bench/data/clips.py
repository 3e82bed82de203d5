"""Data sets of clips: videos, ``<folder>/<split>/<video>``, or folders of frames, ``<folder>/<split>/<clip>/<frame>``.

Videos may lie in class folders too, which are not looked at. A sample is a *moment* of a clip: ``frames`` frames,
``step`` apart, the first of which is its image. Each clip has ``moments`` of them, evenly spread, so that an index
names the same frames for ever. Frames are in the order of the numbers in their names (``2.jpg`` before ``10.jpg``),
and become RGB as images do; videos go through OpenCV, and are not opened before a sample is asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from bench.data import folder_index
from bench.data.base import Sample
from bench.data.images import CorruptImageError, read_image, without_corrupt
from bench.errors import BenchError

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".ogv", ".3gp")


class CorruptClipError(CorruptImageError):
    """A video that cannot be decoded, or a clip that is too short or whose frames differ in size."""

    what_it_is = "clip"


class Clip(NamedTuple):
    """One video or folder of frames."""

    name: str
    """``<split>/<path under the split>``."""
    frames: tuple[str, ...]
    """The names of the frames, in order; none: a video."""
    size: int
    """Bytes, of all its files."""


class ClipDataset:
    """Moments of clips, without labels, in the order of their ids ``<clip>#<moment>``; satisfies ``Dataset``."""

    classes: tuple[str, ...] = ()

    def __init__(self, name: str, folder: Path, clips: list[Clip], *, frames: int, step: int, moments: int) -> None:
        self.name = name
        self._folder, self._clips = folder, sorted(clips, key=lambda clip: f"{clip.name}#")
        self._frames, self._step, self._moments = frames, step, moments
        self._kept = np.arange(len(clips) * moments)
        self._describe()

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Sample:
        """Raises CorruptClipError, CorruptImageError: it cannot be decoded. BenchError: nor read."""
        number, moment = divmod(int(self._kept[index]), self._moments)
        clip = self._clips[number]
        read = self._read_frames if clip.frames else self._read_video
        frames = read(clip, moment)
        if len({frame.shape for frame in frames}) > 1:
            raise CorruptClipError("its frames differ in size", self._where(clip))
        shown = torch.stack(frames)
        return Sample(shown[0], index, -1, shown)

    def without(self, positions: Sequence[int]) -> ClipDataset:
        """The data set as if the moments at these positions were not there."""
        made = ClipDataset(
            self.name, self._folder, self._clips, frames=self._frames, step=self._step, moments=self._moments
        )
        made._kept = np.delete(self._kept, np.asarray(positions, dtype=np.int64))
        made._describe()
        return made

    def _describe(self) -> None:
        """What follows from the moments that are kept."""
        places = [divmod(int(i), self._moments) for i in self._kept]
        self.ids = [f"{self._clips[number].name}#{moment:03d}" for number, moment in places]
        self.labels = np.full(len(places), -1, np.int64)
        shown = [f"{clip.name}\t{clip.size}\t{len(clip.frames)}" for clip in self._clips]
        said = [self.name, f"{self._frames} {self._step} {self._moments}", *shown, *self.ids]
        self.digest = hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]

    def _where(self, clip: Clip) -> str:
        return str(self._folder / clip.name)

    def _start(self, count: int, clip: Clip, moment: int) -> int:
        """The first frame of a moment in a clip of ``count`` frames."""
        span = (self._frames - 1) * self._step + 1
        if count < span:
            raise CorruptClipError(f"{count} frames, and a moment spans {span}", self._where(clip))
        return int((count - span + 1) * (2 * moment + 1) / (2 * self._moments))

    def _read_frames(self, clip: Clip, moment: int) -> list[Tensor]:
        start = self._start(len(clip.frames), clip, moment)
        names = clip.frames[start :: self._step][: self._frames]
        return [read_image(f"{self._where(clip)}/{name}") for name in names]

    def _read_video(self, clip: Clip, moment: int) -> list[Tensor]:
        path = self._where(clip)
        _require_readable(path)
        video = cv2.VideoCapture(path)
        try:
            if not video.isOpened():
                raise CorruptClipError("not a video", path)
            start = self._start(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), clip, moment)
            video.set(cv2.CAP_PROP_POS_FRAMES, start)
            span = (self._frames - 1) * self._step + 1
            shown = [frame for at, frame in enumerate(_frames(video, span)) if at % self._step == 0]
            if len(shown) < self._frames:
                raise CorruptClipError(f"no frame {start + len(shown) * self._step} can be decoded", path)
        finally:
            video.release()
        return [torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1) for frame in shown]


def open_clips(
    name: str,
    folder: Path,
    splits: tuple[str, ...],
    cache: Path,
    *,
    frames: int = 2,
    step: int = 1,
    moments: int = 1,
    skip_corrupt: bool = False,
) -> ClipDataset:
    """The clips of one or several splits of ``folder``, the data set that is called ``name``.

    Args:
        frames: of a sample's clip, 2 or more.
        step: from one of them to the next, in frames of the video.
        moments: samples of each clip.
        skip_corrupt: decode every sample once (the outcome is cached), and leave out, with a warning, what fails.

    Raises:
        BenchError: an option is out of range; a split is missing, empty or unreadable.
    """
    for what, value, least in (("frames", frames, 2), ("step", step, 1), ("moments", moments, 1)):
        if not (isinstance(value, int) and least <= value < 1000):
            raise BenchError(f"clips of {name} cannot have {what} = {value!r}", mend=f"choose {least} to 999")
    clips = [clip for split in splits for clip in _clips(folder, split, cache)]
    dataset = ClipDataset(f"{name}/{'+'.join(splits)}", folder, clips, frames=frames, step=step, moments=moments)
    return without_corrupt(dataset, cache) if skip_corrupt else dataset


def _clips(folder: Path, split: str, cache: Path) -> Iterator[Clip]:
    for inside, listing in folder_index.index(folder / split, cache, (*folder_index.SUFFIXES, *VIDEOS)).items():
        place = f"{split}/{inside}" if inside else split
        sizes = dict(zip(listing["images"], listing["sizes"], strict=True))
        videos = [file for file in sizes if file.lower().endswith(VIDEOS)]
        images = sorted(sizes.keys() - videos, key=_natural)
        yield from (Clip(f"{place}/{video}", (), sizes[video]) for video in videos)
        if images and (videos or not inside):
            raise BenchError(
                f"images lie where clips should, {images[0]!r} the first",
                where=folder / place,
                mend="give each clip a folder with its frames alone, or name the data set without 'frames'",
            )
        if images:
            yield Clip(place, tuple(images), sum(sizes.values()))


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts ``frame2`` before ``frame10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)], name


def _frames(video: cv2.VideoCapture, count: int) -> Iterator[np.ndarray]:
    for _ in range(count):
        there, frame = video.read()
        if not there:
            return
        yield frame


def _require_readable(path: str) -> None:
    try:
        with open(path, "rb"):  # noqa: PTH123  (OpenCV does not say why it cannot open a file)
            pass
    except OSError as error:
        raise BenchError(f"cannot read the video: {error.strerror}", where=path) from error
