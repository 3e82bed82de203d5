"""The drawing kit of :mod:`bench.data.scenes`: dice, colours, a pen with sub-pixel edges, light; and the places.

Coordinates are relative: x to the right and y down, both 0 to 1 over the square canvas, so that a drawing is
the same at every size. Corners are rounded to 1/16 pixel and colours to 8 bits before OpenCV's fixed-point code
(``fillPoly``, exact resizing) turns them into pixels, so the bytes depend neither on the machine nor on threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import cv2
import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue, 0 to 255."""
Points = Sequence[tuple[float, float]] | np.ndarray
T = TypeVar("T")

WHITE: Colour = (255, 255, 255)
_FRACTION_BITS = 4
_SMOOTHING = 5
_ROUNDNESS = 28


class Dice:
    """A reproducible stream of choices: Philox under a fixed key, read in blocks."""

    def __init__(self, first: int, second: int = 0) -> None:
        key = np.array([first, second], dtype=np.uint64)
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._block: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._block:
            self._block = self._generator.random(96).tolist()
        return low + (high - low) * self._block.pop()

    def integer(self, low: int, high: int) -> int:
        """An integer in low .. high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.uniform() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of ``choices``."""
        return choices[int(self.uniform() * len(choices))]

    def seed(self) -> int:
        """A seed for other dice, 32 bits."""
        return int(self.uniform() * 2**32)

    def near(self, colour: Colour, spread: float = 12.0) -> Colour:
        """A colour like this one: each channel and the brightness moved a little."""
        shine = self.uniform(-spread, spread)
        red, green, blue = (min(255.0, max(0.0, c + shine + self.uniform(-spread, spread))) for c in colour)
        return red, green, blue

    def numbers(self, *shape: int) -> np.ndarray:
        """float64 array of numbers in [0, 1)."""
        return self._generator.random(shape)

    def bytes(self, *shape: int) -> np.ndarray:
        """uint8 array."""
        return self._generator.integers(0, 256, shape, dtype=np.uint8)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``share`` of ``second`` in ``first``."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


def dark(colour: Colour, share: float = 0.25) -> Colour:
    """The colour in shade: darker and a little bluer."""
    return mix(colour, (24, 20, 48), share)


def light(colour: Colour, share: float = 0.3) -> Colour:
    """The colour in light: brighter and a little warmer."""
    return mix(colour, (255, 252, 240), share)


class Pen:
    """Draws anti-aliased filled shapes on a square canvas.

    Args:
        canvas: uint8 (side, side, 3) RGB, or (side, side, 4) with alpha, premultiplied.
        flip: mirror left and right.
        tilt: degrees, clockwise, about the centre.
        width: horizontal scale about the centre.
        height: vertical scale about the centre.
    """

    def __init__(
        self, canvas: np.ndarray, flip: bool = False, tilt: float = 0.0, width: float = 1.0, height: float = 1.0
    ) -> None:
        self.canvas = canvas
        unit = canvas.shape[0] << _FRACTION_BITS
        cosine, sine = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        across = -width if flip else width
        self._matrix = unit * np.array([[across * cosine, across * sine], [-height * sine, height * cosine]])
        middle = np.array([0.5, 0.5])
        # OpenCV's integer coordinates are pixel centres: half a pixel to the left of ours.
        self._offset = unit * middle - middle @ self._matrix - (1 << _FRACTION_BITS) / 2

    def fill(self, points: Points, colour: Colour, lit: float = 0.0) -> None:
        """A polygon. ``lit`` > 0 shades its lower rim: the light comes from above, however the pen is tilted."""
        place = np.asarray(points) @ self._matrix + self._offset
        if lit:
            self._paint([place], dark(colour, lit))
            (left, top), (right, bottom) = place.min(0).tolist(), place.max(0).tolist()
            rim = min(0.14 * (bottom - top), 0.05 * (self.canvas.shape[0] << _FRACTION_BITS)) + 1e-6
            across, down = 1 - 1.2 * rim / (right - left + 8 * rim), 1 - rim / (bottom - top + rim)
            place *= (across, down)
            place += ((1 - across) * (left + right) / 2, (1 - down) * top)
        self._paint([place], colour)

    def fills(self, polygons: Sequence[Points] | np.ndarray, colour: Colour) -> None:
        """Polygons of equally many corners at once; where they overlap evenly there is a hole."""
        self._paint(list(np.asarray(polygons) @ self._matrix + self._offset), colour)

    def _paint(self, places: list[np.ndarray], colour: Colour) -> None:
        contours = [np.rint(place).astype(np.int32) for place in places]
        cv2.fillPoly(self.canvas, contours, (*colour, 255), cv2.LINE_AA, _FRACTION_BITS)

    def blob(self, points: Points, colour: Colour, lit: float = 0.0) -> None:
        """A smooth closed shape through the points."""
        self.fill(_smooth(np.asarray(points, dtype=float), closed=True), colour, lit)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour, lit: float = 0.0) -> None:
        """An ellipse about (x, y)."""
        self.fill(_circle() * (rx, ry) + (x, y), colour, lit)

    def leaf(self, x: float, y: float, rx: float, ry: float, degrees: float, colour: Colour, lit: float = 0.0) -> None:
        """An ellipse about (x, y), turned clockwise by ``degrees``."""
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turned = (_circle() * (rx, ry)) @ np.array([[c, s], [-s, c]])
        turned += (x, y)
        self.fill(turned, colour, lit)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """A circle of that line width, empty inside."""
        circle = _circle()
        self.fills([circle * radius + (x, y), circle * (radius - width) + (x, y)], colour)

    def box(
        self, x1: float, y1: float, x2: float, y2: float, colour: Colour, round: float = 0.0, lit: float = 0.0
    ) -> None:
        """A rectangle with rounded corners."""
        if not round:
            self.fill([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour, lit)
            return
        round = min(round, (x2 - x1) / 2, (y2 - y1) / 2)
        corners = _circle() * round
        quarter = _ROUNDNESS // 4
        corners[:quarter] += (x2 - round, y2 - round)
        corners[quarter : 2 * quarter] += (x1 + round, y2 - round)
        corners[2 * quarter : 3 * quarter] += (x1 + round, y1 + round)
        corners[3 * quarter :] += (x2 - round, y1 + round)
        self.fill(corners, colour, lit)

    def limb(
        self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour,
        thin: float = 1.0, lit: float = 0.0,
    ) -> None:  # fmt: skip
        """A straight line with round ends; its width shrinks by ``thin`` towards the end."""
        (x1, y1), (x2, y2) = start, end
        length = math.hypot(x2 - x1, y2 - y1) or 1e-9
        c, s = (x2 - x1) / length, (y2 - y1) / length
        half = _ROUNDNESS // 2
        outline = _circle(-math.pi / 2) @ np.array([[c, s], [-s, c]])  # its first half faces the end
        outline[:half] *= width * thin / 2
        outline[half:] *= width / 2
        outline[:half] += (x2, y2)
        outline[half:] += (x1, y1)
        self.fill(outline, colour, lit)

    def stroke(self, points: Points, width: float, colour: Colour, thin: float = 1.0) -> None:
        """A smooth line through the points; its width shrinks by ``thin`` towards the end."""
        line = _smooth(np.asarray(points, dtype=float), closed=False)
        slope = np.empty_like(line)
        slope[1:-1] = line[2:] - line[:-2]
        slope[0], slope[-1] = line[1] - line[0], line[-1] - line[-2]
        slope /= np.sqrt((slope * slope).sum(1, keepdims=True)) + 1e-12
        half = np.linspace(width / 2, width * thin / 2, len(line))[:, None]
        normal = slope[:, ::-1] * (-1, 1) * half
        tip = line[-1] + slope[-1] * half[-1] * 0.8
        tail = line[0] - slope[0] * half[0] * 0.8
        self.fill(np.concatenate([[tail], line + normal, [tip], (line - normal)[::-1]]), colour)


@cache
def _circle(start: float = 0.0) -> np.ndarray:
    """The unit circle from that angle on, (points, 2)."""
    angles = [start + (k + 0.5) * 2 * math.pi / _ROUNDNESS for k in range(_ROUNDNESS)]
    circle = np.array([(math.cos(angle), math.sin(angle)) for angle in angles])
    circle.setflags(write=False)
    return circle


@cache
def _neighbours(count: int, closed: bool) -> np.ndarray:
    """(segments, 4): for each segment of a spline the points before, at its two ends, and after."""
    first = np.arange(count if closed else count - 1)[:, None] + np.arange(-1, 3)
    return first % count if closed else first.clip(0, count - 1)


@cache
def _basis() -> np.ndarray:
    """(samples, 4): Catmull-Rom weights along one segment."""
    t = np.arange(_SMOOTHING)[:, None] / _SMOOTHING
    powers = np.concatenate([np.ones_like(t), t, t * t, t * t * t], 1)
    return powers @ (np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2)


def _smooth(points: np.ndarray, closed: bool) -> np.ndarray:
    line = (_basis() @ points[_neighbours(len(points), closed)]).reshape(-1, 2)
    return line if closed else np.concatenate([line, points[-1:]])


def wash(canvas: np.ndarray, top: Colour, bottom: Colour, grain: np.ndarray | None = None, strength: int = 0) -> None:
    """Fill (h, w, 3) with a vertical gradient, mottled by ``grain``.

    Args:
        canvas: uint8 (h, w, 3); nothing happens where it is empty.
        top: colour of the first row.
        bottom: colour of the last row.
        grain: uint8 (rows, columns), smoothly enlarged; coarse rows make wide streaks.
        strength: the largest change by the grain, in grey levels.
    """
    height, width = canvas.shape[:2]
    if not height or not width:
        return
    if grain is None:
        grain = np.full((16, 1), 128, np.uint8)
    share = np.linspace(0, 1, len(grain))[:, None]
    rows = np.asarray(top) + share * (np.asarray(bottom) - np.asarray(top))
    coarse = rows[:, None] + ((grain.astype(np.int32) - 128) * strength >> 7)[..., None]
    coarse = np.rint(coarse).clip(0, 255).astype(np.uint8)
    canvas[:] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)


def shade_from_above(sprite: np.ndarray) -> None:
    """Give a flat premultiplied RGBA drawing (side, side, 4) a soft bright upper and a dark lower edge."""
    side = len(sprite)
    alpha = cv2.extractChannel(sprite, 3)
    reach = max(2, side // 14)
    window = 2 * reach + 1
    total: np.ndarray = cv2.boxFilter(
        alpha, cv2.CV_32S, (window, window), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    gain = np.full((side, side), 130, np.int32)
    gain[reach:-reach] += (total[2 * reach :] - total[: -2 * reach]) // (8 * window * window)
    gain = gain.astype(np.uint16)
    gains: np.ndarray = cv2.merge([gain, gain, gain, np.full_like(gain, 128)])
    sprite[:] = np.minimum(sprite * gains >> 7, cv2.merge([alpha] * 4))


def paste(canvas: np.ndarray, sprite: np.ndarray, left: int, top: int) -> np.ndarray:
    """Lay a premultiplied RGBA sprite over the canvas at that pixel; what lies outside is cut off.

    Returns:
        the sprite's alpha on the canvas, uint8 (side, side).
    """
    alpha = np.zeros(canvas.shape[:2], np.uint8)
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = min(top + len(sprite), len(canvas)), min(left + len(sprite), len(canvas))
    if y1 < y2 and x1 < x2:
        part = sprite[y1 - top : y2 - top, x1 - left : x2 - left]
        alpha[y1:y2, x1:x2] = part[..., 3]
        through: np.ndarray = cv2.merge([255 - alpha[y1:y2, x1:x2].astype(np.uint16)] * 3)
        under = canvas[y1:y2, x1:x2]
        kept = under * through + 128  # a / 255 is (a + 128 + (a + 128 >> 8)) >> 8, rounded
        kept += kept >> 8
        kept >>= 8
        under[:] = kept + cv2.cvtColor(part, cv2.COLOR_RGBA2RGB)
    return alpha


def shadow(canvas: np.ndarray, x: float, y: float, rx: float, ry: float, strength: float) -> None:
    """Darken a soft ellipse about (x, y); ``strength`` 0 to 1 at its middle."""
    side = len(canvas)
    x1, x2 = max(0, round((x - rx) * side)), min(side, round((x + rx) * side))
    y1, y2 = max(0, round((y - ry) * side)), min(side, round((y + ry) * side))
    if x1 >= x2 or y1 >= y2:
        return
    across = ((np.arange(x1, x2) + 0.5) / side - x) / rx
    down = ((np.arange(y1, y2) + 0.5) / side - y) / ry
    depth = (1 - across * across - (down * down)[:, None]).clip(0)
    keep = np.rint(256 * (1 - strength * depth)).astype(np.uint16)[..., None]
    part = canvas[y1:y2, x1:x2]
    part[:] = part * keep >> 8


# Places: a backdrop (sky and hills, a town, a room, ...) over a ground (grass, a road, a floor, ...).
# fmt: off

INDOORS = ("floor", "table")

GROUNDS_OF: dict[str, tuple[str, ...]] = {
    "aeroplane": ("grass", "water", "sand", "snow", "paving", "grass"),
    "bicycle": ("road", "paving", "grass", "sand"),
    "bird": ("grass", "sand", "snow", "paving", "grass"),
    "boat": ("water",),
    "bottle": ("table", "table", "floor", "sand", "grass"),
    "bus": ("road", "road", "paving", "snow"),
    "car": ("road", "road", "grass", "snow", "sand"),
    "cat": ("floor", "floor", "grass", "paving", "table", "snow"),
    "chair": ("floor", "floor", "grass", "paving", "sand"),
    "cow": ("grass", "grass", "snow", "sand", "road"),
    "diningtable": ("floor", "floor", "paving", "grass"),
    "dog": ("grass", "floor", "sand", "snow", "paving"),
    "horse": ("grass", "grass", "sand", "snow", "road"),
    "motorbike": ("road", "paving", "sand", "grass"),
    "person": ("grass", "paving", "sand", "snow", "floor", "road"),
    "pottedplant": ("floor", "table", "paving", "grass"),
    "sheep": ("grass", "grass", "snow", "road", "sand"),
    "sofa": ("floor", "floor", "floor", "paving"),
    "train": ("track",),
    "tvmonitor": ("floor", "table", "table"),
}
"""Where each class is found; a ground that is named twice is twice as likely."""


def draw_place(canvas: np.ndarray, dice: Dice, ground: str, horizon: float) -> None:
    """Paint a backdrop of the dice's choice over a ground, on all of the canvas, uint8 (side, side, 3).

    ``ground`` is one of :data:`GROUNDS_OF`, and ``horizon`` the height of the line between them, 0 (top) to 1;
    or it is ``"paper"``, which has neither backdrop nor horizon.
    """
    pen = Pen(canvas)
    split = round(horizon * len(canvas))
    if ground == "paper":
        _paper(pen, dice)
        return
    if ground in INDOORS:
        _wall(pen, dice, split, horizon)
    else:
        haze = _sky(pen, dice, split)
        dice.pick((_hills, _mountains, _forest, _town, _shore))(pen, dice, horizon, haze)
    _GROUNDS[ground](pen, dice, split, horizon)


_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((104, 172, 232), (214, 238, 246)), ((136, 192, 226), (252, 232, 204)), ((150, 150, 206), (254, 206, 170)),
    ((182, 198, 212), (234, 238, 238)), ((130, 206, 222), (240, 246, 220)), ((110, 150, 214), (236, 214, 232)),
)


def _paper(pen: Pen, dice: Dice) -> None:
    """Patterned paper: nothing but the object and its shadow tells which way is up."""
    paper = dice.near(dice.pick((*_WALLS, *_FACADES)))
    wash(pen.canvas, light(paper, 0.1), dark(paper, 0.06), dice.bytes(5, 5), 7)
    ink = dice.pick((light(paper, 0.45), dark(paper, 0.10), mix(paper, dice.pick(_FACADES), 0.4)))
    step, size = dice.uniform(0.11, 0.17), dice.uniform(0.14, 0.24)
    shape = np.array(dice.pick(_PRINTS)) * step * size
    rows, columns = np.divmod(np.arange(10 * 10), 10)
    middles = np.stack([columns + 0.5 * (rows % 2), rows], 1) * step - dice.uniform(0, step)
    pen.fills(shape + middles[:, None], ink)


_PRINTS: tuple[tuple[tuple[float, float], ...], ...] = (
    ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7), (-1, 0), (-0.7, -0.7), (0, -1), (0.7, -0.7)),
    ((1.2, 0), (0.3, 0.3), (0, 1.2), (-0.3, 0.3), (-1.2, 0), (-0.3, -0.3), (0, -1.2), (0.3, -0.3)),
    ((0.35, 1.2), (-0.35, 1.2), (-0.35, -1.2), (0.35, -1.2)),
    ((1.2, 0.35), (-1.2, 0.35), (-1.2, -0.35), (1.2, -0.35)),
    ((0, -1), (1, 0), (0, 1), (-1, 0)),
)
"""Dots, stars, upright and level dashes, diamonds."""


def _sky(pen: Pen, dice: Dice, split: int) -> Colour:
    """Sky, sun and clouds; returns the colour of the haze above the horizon."""
    top, bottom = dice.pick(_SKIES)
    top, bottom = dice.near(top, 8), dice.near(bottom, 5)
    wash(pen.canvas[:split], top, bottom)
    if dice.chance(0.4):
        x, y, r = dice.uniform(0.1, 0.9), dice.uniform(0.08, 0.22), dice.uniform(0.045, 0.07)
        pen.disc(x, y, r * 1.7, r * 1.7, mix(top, (255, 244, 206), 0.35))
        pen.disc(x, y, r, r, (255, 242, 196))
    white = mix(bottom, WHITE, 0.75)
    for _ in range(dice.integer(0, 4)):
        x, y, size = dice.uniform(0.0, 1.0), dice.uniform(0.06, 0.36), dice.uniform(0.6, 1.2)
        _cloud(pen, x, y, size, mix(white, top, 0.25), 0.014 * size)
        _cloud(pen, x, y, size, white, 0.0)
    return bottom


def _cloud(pen: Pen, x: float, y: float, size: float, colour: Colour, low: float) -> None:
    for dx, dy, r in ((-0.10, 0.0, 0.045), (-0.03, -0.028, 0.065), (0.05, -0.018, 0.055), (0.11, 0.002, 0.04)):
        pen.disc(x + dx * size, y + dy * size + low, r * size * 1.1, r * size * 0.85, colour)
    pen.box(x - 0.15 * size, y - 0.005 * size + low, x + 0.15 * size, y + 0.04 * size + low, colour, 0.03 * size)


def _ridge(dice: Dice, base: float, height: float, waves: float) -> Points:
    """A wavy silhouette that stands on ``base``."""
    x = np.linspace(-0.02, 1.02, 15)
    phase, second = dice.uniform(0, 6.28), dice.uniform(0, 6.28)
    wave = 0.6 * _sine(x * waves * 6.28 + phase) + 0.4 * _sine(x * waves * 14.1 + second)
    top = base - height * (0.55 + 0.45 * wave)
    return np.concatenate([np.stack([x, top], 1), [(1.02, base + 0.02), (-0.02, base + 0.02)]])


def _sine(x: np.ndarray) -> np.ndarray:
    return np.array([math.sin(value) for value in x.tolist()])


def _hills(pen: Pen, dice: Dice, horizon: float, haze: Colour) -> None:
    green = dice.near(dice.pick(((110, 160, 130), (136, 168, 110), (120, 150, 160), (190, 170, 120))))
    for k, fade in enumerate((0.6, 0.35, 0.1)):
        pen.fill(_ridge(dice, horizon, 0.19 - 0.055 * k, dice.uniform(0.5, 1.3)), mix(green, haze, fade))
    _trees(pen, dice, horizon, dice.integer(0, 4), 0.07, 0.14)


def _trees(pen: Pen, dice: Dice, base: float, count: int, small: float, tall: float) -> None:
    for _ in range(count):
        x, size = dice.uniform(), dice.uniform(small, tall)
        leaf = dice.near(dice.pick(((86, 142, 92), (112, 158, 86), (70, 122, 96), (206, 150, 82))), 8)
        pen.box(x - size * 0.07, base - size * 0.4, x + size * 0.07, base + 0.01, (120, 86, 66))
        if dice.chance(0.4):
            for k in range(3):
                y, half = base - size * (0.25 + 0.27 * k), size * (0.34 - 0.07 * k)
                pen.fill([(x - half, y), (x, y - size * 0.5), (x + half, y)], mix(dark(leaf, 0.25), leaf, k / 2))
        else:
            pen.disc(x, base - size * 0.72, size * 0.42, size * 0.48, dark(leaf, 0.22))
            pen.disc(x, base - size * 0.77, size * 0.38, size * 0.41, leaf)
            pen.disc(x - size * 0.08, base - size * 0.93, size * 0.18, size * 0.16, light(leaf, 0.25))


def _mountains(pen: Pen, dice: Dice, horizon: float, haze: Colour) -> None:
    rock = dice.near(dice.pick(((122, 134, 170), (142, 128, 156), (112, 140, 156), (170, 140, 126))))
    for fade, count in ((0.45, 3), (0.1, 2)):
        colour = mix(rock, haze, fade)
        for k in range(count):
            x = (k + dice.uniform(0.2, 0.8)) / count
            height, half = dice.uniform(0.16, 0.32) * (0.7 + fade), dice.uniform(0.20, 0.34)
            peak, base = horizon - height, horizon + 0.01
            pen.fill([(x - half, base), (x, peak), (x + half, base)], colour)
            pen.fill([(x, peak), (x + half, base), (x + half * 0.15, base), (x + half * 0.1, peak + height * 0.5)],
                dark(colour, 0.15))
            s = 0.34
            pen.fill([(x, peak), (x + half * s, peak + height * s), (x + half * 0.12, peak + height * 0.25),
                (x - half * 0.06, peak + height * 0.4), (x - half * 0.16, peak + height * 0.24),
                (x - half * s, peak + height * s)], mix((252, 252, 255), haze, 0.2))
    _trees(pen, dice, horizon, dice.integer(0, 3), 0.06, 0.11)


def _forest(pen: Pen, dice: Dice, horizon: float, haze: Colour) -> None:
    green = dice.near(dice.pick(((74, 128, 92), (96, 140, 84), (92, 124, 112), (186, 130, 74))))
    for row, fade in enumerate((0.5, 0.25, 0.0)):
        colour = mix(green, haze, fade)
        steps = 9 - 2 * row
        trees = []
        for k in range(steps):
            x, half = (k + dice.uniform(0.1, 0.9)) / steps, dice.uniform(0.055, 0.08) + 0.012 * row
            height = dice.uniform(0.22, 0.34) - 0.05 * row
            trees.append([(x - half, horizon + 0.02), (x, horizon - height), (x + half, horizon + 0.02)])
        pen.box(-0.02, horizon - 0.09 + 0.02 * row, 1.02, horizon + 0.02, dark(colour, 0.1))
        for tree in trees:
            (left, foot), top, (right, _) = tree
            pen.fill(tree, colour)
            pen.fill([top, (right, foot), ((left + right) / 2, foot)], dark(colour, 0.14))


def _town(pen: Pen, dice: Dice, horizon: float, haze: Colour) -> None:
    x = -dice.uniform(0.0, 0.1)
    while x < 1.0:
        width, height = dice.uniform(0.13, 0.24), dice.uniform(0.14, 0.36)
        front = mix(dice.near(dice.pick(_FACADES)), haze, 0.25)
        top = horizon - height
        pen.box(x, top, x + width + 0.004, horizon + 0.02, front)
        if dice.chance(0.5):
            roof = mix(dice.pick(((186, 92, 76), (122, 104, 116), (150, 110, 84))), haze, 0.2)
            pen.fill([(x - 0.012, top), (x + width * 0.5, top - 0.08), (x + width + 0.016, top)], roof)
        else:
            pen.box(x - 0.008, top, x + width + 0.012, top + 0.02, dark(front, 0.2))
        glass = mix(dice.pick(((96, 124, 150), (254, 236, 180), (150, 190, 210))), haze, 0.15)
        columns = max(2, int(width / 0.065))
        rows = max(1, int(height / 0.085))
        w, h = width / columns, height / rows
        corner = np.array([[0.25, 0.28], [0.75, 0.28], [0.75, 0.78], [0.25, 0.78]]) * (w, h)
        shift = np.array([(x + i * w, top + j * h) for i in range(columns) for j in range(rows)])
        pen.fills(corner + shift[:, None], glass)
        x += width
    _trees(pen, dice, horizon, dice.integer(0, 2), 0.07, 0.12)


_FACADES: tuple[Colour, ...] = (
    (236, 204, 160), (222, 164, 136), (178, 190, 204), (206, 186, 206), (240, 224, 196), (168, 198, 184),
    (196, 120, 100),
)


def _shore(pen: Pen, dice: Dice, horizon: float, haze: Colour) -> None:
    level = horizon - dice.uniform(0.06, 0.14)
    side = len(pen.canvas)
    sea = mix(dice.near(dice.pick(((66, 146, 186), (74, 166, 170), (110, 140, 190)))), haze, 0.2)
    if dice.chance(0.6):
        pen.fill(_ridge(dice, level, dice.uniform(0.05, 0.13), 0.5), mix((120, 146, 150), haze, 0.4))
    wash(pen.canvas[round(level * side) : round(horizon * side)], mix(sea, haze, 0.35), sea)
    for _ in range(dice.integer(3, 7)):
        x, y = dice.uniform(), dice.uniform(level + 0.015, horizon - 0.01)
        pen.limb((x, y), (x + dice.uniform(0.04, 0.12), y), 0.008, light(sea, 0.5))


_WALLS: tuple[Colour, ...] = (
    (240, 224, 200), (206, 224, 214), (204, 216, 234), (240, 210, 204), (228, 214, 234), (238, 230, 176),
    (190, 206, 196), (214, 190, 166),
)


def _wall(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    wall = dice.near(dice.pick(_WALLS), 8)
    wash(pen.canvas[:split], light(wall, 0.35), dark(wall, 0.14))
    dice.pick((_wallpaper, _tiles, _panels))(pen, dice, wall, horizon)
    for x in (0.05, 0.55):
        hang = dice.pick((_window, _window, _picture, _shelf))
        if dice.chance(0.7):
            hang(pen, dice, x + dice.uniform(0.0, 0.06), horizon)


def _wallpaper(pen: Pen, dice: Dice, wall: Colour, horizon: float) -> None:
    if dice.chance(0.6):
        for k in range(10):
            pen.box(k * 0.1 + 0.02, 0.0, k * 0.1 + 0.055, horizon, light(wall, 0.27))
    pen.box(-0.01, horizon - 0.03, 1.01, horizon + 0.01, light(wall, 0.7))


def _tiles(pen: Pen, dice: Dice, wall: Colour, horizon: float) -> None:
    size, line = dice.uniform(0.075, 0.10), light(wall, 0.55)
    top = horizon - 3 * size
    for k in range(4):
        pen.box(-0.01, top + k * size - 0.005, 1.01, top + k * size + 0.005, line)
    for k in range(int(1 / size) + 1):
        pen.box(k * size - 0.004, top, k * size + 0.004, horizon, line)


def _panels(pen: Pen, dice: Dice, wall: Colour, horizon: float) -> None:
    shift = dice.uniform(0, 1 / 6)
    pen.box(-0.01, horizon - 0.13, 1.01, horizon, light(wall, 0.5))
    for k in range(-1, 6):
        pen.box(k / 6 + shift + 0.02, horizon - 0.105, k / 6 + shift + 0.145, horizon - 0.04, light(wall, 0.3))
    pen.box(-0.01, horizon - 0.025, 1.01, horizon + 0.01, light(wall, 0.7))


_FRAME: Colour = (250, 248, 242)


def _window(pen: Pen, dice: Dice, x: float, horizon: float) -> None:
    y, width, bottom = 0.06, dice.uniform(0.27, 0.33), horizon - dice.uniform(0.16, 0.22)
    end = x + width
    pen.box(x - 0.02, y - 0.02, end + 0.02, bottom + 0.02, _FRAME, 0.008)
    top, low = dice.pick(_SKIES)
    pen.box(x, y, end, bottom, mix(top, low, 0.4))
    hill = [(x, bottom), (x, bottom - 0.06), (x + width * 0.4, bottom - 0.10), (end, bottom - 0.05), (end, bottom)]
    pen.fill(hill, dice.near((132, 178, 116)))
    pen.box(x + width / 2 - 0.008, y, x + width / 2 + 0.008, bottom, _FRAME)
    pen.box(x, (y + bottom) / 2 - 0.008, end, (y + bottom) / 2 + 0.008, _FRAME)
    if dice.chance(0.6):
        cloth = dice.near(dice.pick(_FACADES))
        for edge, inwards in ((x - 0.05, 1), (end + 0.05, -1)):
            wide, narrow = edge + 0.12 * inwards, edge + 0.08 * inwards
            pen.fill([(edge, y - 0.04), (wide, y - 0.04), (narrow, bottom + 0.04), (edge, bottom + 0.04)], cloth)
        pen.limb((x - 0.07, y - 0.04), (end + 0.07, y - 0.04), 0.02, (122, 86, 62))
    pen.box(x - 0.035, bottom + 0.015, end + 0.035, bottom + 0.04, (236, 230, 220), 0.006)


def _picture(pen: Pen, dice: Dice, x: float, horizon: float) -> None:
    x, y = x + dice.uniform(0.0, 0.12), dice.uniform(0.08, 0.20)
    w, h = dice.uniform(0.13, 0.22), dice.uniform(0.12, 0.19)
    pen.box(x, y, x + w, y + h, dice.pick(((122, 86, 62), _FRAME, (60, 58, 66), (214, 170, 96))), 0.006)
    pen.box(x + 0.018, y + 0.018, x + w - 0.018, y + h - 0.018, dice.near(dice.pick(_WALLS)))
    middle = (x + w / 2, y + h * 0.55)
    pen.disc(*middle, w * 0.22, h * 0.22, dice.near(dice.pick(_FACADES), 30))


def _shelf(pen: Pen, dice: Dice, x: float, horizon: float) -> None:
    y, end = horizon * dice.uniform(0.32, 0.48), x + dice.uniform(0.32, 0.38)
    at = x + 0.02
    while at < end - 0.06:
        width, height = dice.uniform(0.022, 0.05), dice.uniform(0.07, 0.12)
        pen.box(at, y - height, at + width, y, dice.near(dice.pick(_FACADES), 30), 0.006)
        at += width + 0.006 + 0.05 * dice.chance(0.2)
    pen.box(x, y, end, y + 0.022, (150, 108, 76))
    pen.box(x, y + 0.022, end, y + 0.03, (112, 82, 66))


def _grass(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    green = dice.near(dice.pick(((128, 176, 92), (108, 166, 100), (160, 178, 92), (188, 176, 104), (116, 158, 116))), 8)
    wash(pen.canvas[split:], light(green, 0.18), dark(green, 0.22), dice.bytes(9, 6), 12)
    depth = 1 - horizon
    for colour in (dark(green, 0.30), light(green, 0.28)):
        spots = dice.numbers(16, 2)
        y = horizon + depth * (0.06 + 0.94 * spots[:, 1])
        size = 0.012 + 0.03 * spots[:, 1]
        blade = np.array([[-0.35, 0.0], [-0.7, -0.8], [-0.1, -0.3], [0.05, -1.2], [0.2, -0.3], [0.8, -0.9],
            [0.35, 0.0]])
        pen.fills(blade * size[:, None, None] + np.stack([spots[:, 0], y], 1)[:, None], colour)
    if dice.chance(0.6):
        colour = dice.pick(((252, 248, 236), (250, 214, 96), (238, 130, 130), (196, 150, 214)))
        for px, py in dice.numbers(dice.integer(4, 10), 2).tolist():
            y, r = horizon + depth * (0.1 + 0.9 * py), 0.008 + 0.010 * py
            pen.disc(px, y, r, r * 0.8, colour)


def _road(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    dice.pick((_grass, _paving))(pen, dice, split, horizon)
    side = len(pen.canvas)
    top = horizon + dice.uniform(0.05, 0.12)
    asphalt = dice.near(dice.pick(((134, 134, 146), (120, 122, 132), (156, 148, 144))), 6)
    start = round(top * side)
    wash(pen.canvas[start:], light(asphalt, 0.1), dark(asphalt, 0.2), dice.bytes(14, 14), 7)
    pen.box(-0.01, top - 0.015, 1.01, top + 0.012, light(asphalt, 0.45))
    pen.box(-0.01, top + 0.012, 1.01, top + 0.022, dark(asphalt, 0.3))
    y, shift = top + (1 - top) * 0.62, dice.uniform(0, 0.3)
    for k in range(-1, 4):
        x = k * 0.3 + shift
        pen.fill([(x, y), (x + 0.15, y), (x + 0.14, y + 0.025), (x - 0.015, y + 0.025)], (240, 236, 220))


def _track(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    dice.pick((_snow, _grass, _grass, _grass))(pen, dice, split, horizon)
    y, stone = 0.90, dice.near((164, 154, 146), 8)
    pen.fill([(-0.02, y - 0.07), (1.02, y - 0.07), (1.02, y + 0.09), (-0.02, y + 0.09)], stone)
    spots = dice.numbers(36, 2) * (1.0, 0.15) + (0.0, y - 0.065)
    pen.fills(np.array([[-0.01, 0.0], [0.0, -0.008], [0.01, 0.0], [0.0, 0.008]]) + spots[:, None], dark(stone, 0.3))
    for k in range(9):
        x = k * 0.125 + 0.02
        pen.fill([(x, y - 0.04), (x + 0.05, y - 0.04), (x + 0.045, y + 0.055), (x - 0.015, y + 0.055)], (122, 90, 72))
    for rail in (y - 0.022, y + 0.022):
        pen.box(-0.02, rail - 0.009, 1.02, rail + 0.009, (104, 104, 116))
        pen.box(-0.02, rail - 0.009, 1.02, rail - 0.002, (216, 218, 226))


def _sand(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    sand = dice.near(dice.pick(((236, 208, 156), (226, 190, 140), (238, 220, 184))), 6)
    wash(pen.canvas[split:], light(sand, 0.25), dark(sand, 0.16), dice.bytes(12, 5), 10)
    for _ in range(dice.integer(4, 8)):
        x, y = dice.uniform(-0.1, 1), horizon + (1 - horizon) * dice.uniform(0.08, 0.98)
        w = dice.uniform(0.08, 0.22)
        pen.stroke([(x, y), (x + w * 0.3, y - 0.010), (x + w * 0.7, y + 0.008), (x + w, y)],
            0.012, dark(sand, 0.14), 0.4)
    for _ in range(dice.integer(0, 4)):
        x, y = dice.uniform(), horizon + (1 - horizon) * dice.uniform(0.2, 0.95)
        pen.disc(x, y, 0.016, 0.011, dice.pick(((250, 240, 226), (230, 150, 130), (190, 170, 150))), 0.3)


def _snow(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    snow = dice.near((226, 234, 246), 4)
    wash(pen.canvas[split:], light(snow, 0.35), (178, 194, 222), dice.bytes(8, 5), 9)
    for _ in range(dice.integer(2, 4)):
        x, y, w = dice.uniform(-0.2, 0.9), horizon + (1 - horizon) * dice.uniform(0.1, 0.9), dice.uniform(0.2, 0.5)
        pen.blob([(x, y), (x + w * 0.5, y - 0.035), (x + w, y), (x + w * 0.5, y + 0.012)], light(snow, 0.6))


def _paving(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    stone = dice.near(dice.pick(((196, 188, 180), (206, 186, 164), (176, 182, 190), (198, 164, 148))), 6)
    wash(pen.canvas[split:], light(stone, 0.2), dark(stone, 0.18), dice.bytes(10, 10), 9)
    _perspective(pen, dice, horizon, dark(stone, 0.22), dice.integer(4, 6))


def _perspective(pen: Pen, dice: Dice, horizon: float, colour: Colour, rows: int) -> None:
    """The joints of a tiled ground: rows that widen to the front, columns that meet far behind the horizon."""
    depth, middle = 1 - horizon, dice.uniform(0.35, 0.65)
    for k in range(1, rows):
        y = horizon + depth * (k / rows) ** 1.6
        pen.box(-0.02, y, 1.02, y + 0.006 + 0.006 * k / rows, colour)
    lines = []
    for k in range(-5, 6):
        far, near = middle + k * 0.13, middle + k * 0.24
        lines.append([(far - 0.003, horizon), (far + 0.003, horizon), (near + 0.006, 1.0), (near - 0.006, 1.0)])
    pen.fills(np.array(lines), colour)


def _water(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    sea = dice.near(dice.pick(((74, 152, 190), (80, 170, 172), (104, 138, 188), (92, 150, 150))), 8)
    wash(pen.canvas[split:], light(sea, 0.38), dark(sea, 0.2), dice.bytes(12, 3), 9)
    for k in range(dice.integer(9, 14)):
        share = dice.uniform(0.03, 0.98)
        x, y, w = dice.uniform(-0.1, 1.0), horizon + (1 - horizon) * share, 0.05 + 0.14 * share
        pen.stroke([(x, y), (x + w * 0.33, y - 0.014 * share), (x + w * 0.66, y + 0.010 * share), (x + w, y)],
            0.008 + 0.010 * share, light(sea, 0.45) if k % 3 else dark(sea, 0.15), 0.4)


def _floor(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    if dice.chance(0.5):
        wood = dice.near(dice.pick(((196, 148, 104), (168, 122, 88), (214, 178, 134), (150, 112, 92))), 6)
        wash(pen.canvas[split:], light(wood, 0.15), dark(wood, 0.18), dice.bytes(3, 12), 12)
        _perspective(pen, dice, horizon, dark(wood, 0.2), 1)
    else:
        tile = dice.near(dice.pick(((196, 180, 168), (170, 186, 190), (206, 176, 150), (160, 150, 168))), 6)
        wash(pen.canvas[split:], light(tile, 0.15), dark(tile, 0.2), dice.bytes(6, 6), 8)
        _perspective(pen, dice, horizon, light(tile, 0.35), 4)
    if dice.chance(0.55):
        rug = dice.near(dice.pick(_FACADES), 26)
        x, y = dice.uniform(0.4, 0.6), horizon + (1 - horizon) * 0.62
        wide, deep = dice.uniform(0.36, 0.50), (1 - horizon) * 0.33
        for shrink, colour in ((1.0, dark(rug, 0.15)), (0.88, rug), (0.66, light(rug, 0.35)), (0.54, rug)):
            pen.disc(x, y, wide * shrink, deep * shrink, colour)


def _table(pen: Pen, dice: Dice, split: int, horizon: float) -> None:
    wood = dice.near(dice.pick(((190, 138, 94), (160, 112, 80), (216, 180, 136), (236, 226, 210))), 6)
    wash(pen.canvas[split:], light(wood, 0.2), dark(wood, 0.12), dice.bytes(10, 2), 12)
    for _ in range(4):
        y, x = horizon + (1 - horizon) * dice.uniform(0.1, 0.85), dice.uniform(-0.2, 0.6)
        pen.stroke([(x, y), (x + 0.2, y + 0.008), (x + dice.uniform(0.35, 0.6), y)], 0.009, dark(wood, 0.16), 0.3)
    if dice.chance(0.45):
        cloth = dice.near(dice.pick(_FACADES), 20)
        y1, y2 = horizon + (1 - horizon) * 0.25, horizon + (1 - horizon) * 0.85
        pen.fill([(0.16, y1), (0.84, y1), (0.94, y2), (0.06, y2)], cloth)
        pen.fill([(0.19, y1 + 0.02), (0.81, y1 + 0.02), (0.89, y2 - 0.025), (0.11, y2 - 0.025)], light(cloth, 0.35))
    pen.box(-0.02, 0.955, 1.02, 1.02, dark(wood, 0.35))


_GROUNDS = {
    "grass": _grass, "road": _road, "track": _track, "sand": _sand, "snow": _snow, "paving": _paving,
    "water": _water, "floor": _floor, "table": _table,
}
