"""``moving``: clips made of any data set of images, by objects that move over them while the camera pans and zooms.

Every image is the background of one clip. One to three drawn objects of ``scenes`` lie on it; those of a mobile class
move on their own, the others stand still on their ground. So a border that was cut and pasted tells that there is an
object, but only what it is tells whether it moves.

A sample's ``image`` is the photograph alone, for tasks that learn from images; its ``clip`` starts with the
photograph and its objects. The clip is a function of the photograph and its id alone.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np

from bench.data.base import Dataset, Sample
from bench.data.scenes import VERSION as SCENES_VERSION
from bench.data.scenes_draw import Dice
from bench.data.scenes_motion import MOBILE, SPEEDS, check_frames
from bench.data.scenes_objects import CLASSES, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Matrix = NDArray[np.float64]

VERSION = 1
"""Bump it when a pixel of a clip changes: it is part of every digest."""

SIZES = (0.25, 0.6)
"""Of an object, relative to the image's short side."""
PAN, ZOOM = 0.02, 0.01
"""The camera's largest pan along each axis, as much, and zoom, a frame."""


class Moving:
    """Clips of ``frames`` frames over the images of ``dataset``, whose ids and labels they keep; satisfies ``Dataset``.

    Raises:
        BenchError: fewer than two frames, or too many.
    """

    def __init__(self, dataset: Dataset, frames: int = 2) -> None:
        check_frames("moving", frames)
        self.name = f"moving/{dataset.name.partition('/')[2]}"
        self.ids, self.classes, self.labels = dataset.ids, dataset.classes, dataset.labels
        made = f"moving {VERSION}, scenes {SCENES_VERSION}, {frames} frames over {dataset.digest}"
        self.digest = hashlib.sha256(made.encode()).hexdigest()[:16]
        self._dataset, self._frames = dataset, frames

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises what the data set of images raises."""
        import torch

        sample = self._dataset[index]
        clip, _ = compose(sample.image.permute(1, 2, 0).numpy(), self.ids[index], self._frames)
        return sample._replace(clip=torch.from_numpy(clip).permute(0, 3, 1, 2))


def compose(image: Pixels, name: str, frames: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """A clip over an image, uint8 (H, W, 3); ``name`` draws its objects and motions.

    Returns:
        the frames, uint8 (T, H, W, 3), and the truth, which only tests look at: which pixels of the first frame show
        something mobile, bool (H, W).
    """
    dice = Dice(zlib.crc32(name.encode()))
    height, width = image.shape[:2]
    camera = _Camera(dice, height, width)
    objects = [_Object(dice, height, width) for _ in range(dice.pick((1, 1, 2, 2, 3)))]
    clip = np.repeat(image[None], frames, axis=0)
    mobile = np.zeros((height, width), bool)
    for time, frame in enumerate(clip):
        view = camera.at(time)
        if time:
            cv2.warpAffine(image, view[:2], (width, height), frame, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
        for thing in objects:
            alpha = thing.paint(frame, view, time)
            if not time:
                mobile[alpha >= 128] = thing.mobile
    return clip, mobile


class _Camera:
    """A pan and a zoom about the middle, at constant speed."""

    def __init__(self, dice: Dice, height: int, width: int) -> None:
        side = min(height, width)
        self._pan = [side * dice.uniform(-PAN, PAN) for _ in range(2)]
        self._zoom = dice.uniform(-ZOOM, ZOOM)
        self._middle = ((width - 1) / 2, (height - 1) / 2)

    def at(self, time: int) -> Matrix:
        """From pixels of the first frame to those of a later one, (3, 3)."""
        scale = (1 + self._zoom) ** time
        (x, y), (right, down) = self._middle, self._pan
        return np.array(
            [[scale, 0, (1 - scale) * x + time * right], [0, scale, (1 - scale) * y + time * down], [0, 0, 1]]
        )


class _Object:
    """A drawn object, its place in the first frame, and its velocity over the ground."""

    def __init__(self, dice: Dice, height: int, width: int) -> None:
        side = min(height, width)
        label = dice.integer(0, len(CLASSES) - 1)
        self.mobile = MOBILE[label]
        pixels = max(8, round(side * dice.uniform(*SIZES)))
        self._picture = draw(label, dice.seed(), pixels)
        self._x = width * dice.uniform(0.15, 0.85) - pixels / 2
        self._y = height * dice.uniform(0.15, 0.85) - pixels / 2
        speed, angle = side * dice.uniform(*SPEEDS) * self.mobile, dice.uniform(0, 2 * math.pi)
        self._velocity = (speed * math.cos(angle), speed * math.sin(angle))

    def paint(self, frame: Pixels, view: Matrix, time: int) -> Pixels:
        """Lay it over the frame; its alpha there, uint8 (H, W)."""
        right, down = self._x + time * self._velocity[0], self._y + time * self._velocity[1]
        place = view @ np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
        laid = cv2.warpAffine(self._picture, place[:2], frame.shape[1::-1], flags=cv2.INTER_LINEAR)
        alpha = laid[..., 3:].astype(np.uint16)
        frame[:] = (frame * (255 - alpha) + 127) // 255 + laid[..., :3]
        return np.asarray(laid[..., 3], np.uint8)
