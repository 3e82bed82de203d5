"""Which pixels of a clip's first frame move on their own: dense optical flow, less the motion of the camera.

1. Flow: OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) from the first frame
   to each later one, on grey values at ``SIDE`` pixels of the short side; divided by the time between, and averaged.
2. Camera: the motion that explains the frame's rim best, where things that move are seldom. The candidates are rest
   and the pans that the flow shows along the rim; the best, refined to an affine motion by least squares with Geman
   and McClure's weights, is kept where it explains the rim still better.
3. Grouping: a pixel moves where the camera's motion does not explain the last frame, and the flow departs from it by
   more than noise, and by more than half of what such pixels do; then holes are filled, and specks removed.

Nothing else is looked at: no label, no edge, and nothing that a generator of clips may know.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

STATIC, MOVING, IGNORED = 0, 1, 255
"""The values of a mask."""

SIDE = 96
"""Pixels of the short side at which motion is looked for; DIS's patches have 8."""
CELLS = 5
"""Along each side of the grid at whose rim the camera's pan is looked for."""
ROUNDS = 5
UNLIKE = 24.0
"""A pixel that differs by more grey values, of 255, does not count for more."""
UNEXPLAINED = 6.0
"""Grey values by which something near a pixel that moves differs."""
NEAR = 7
LEAST = 0.6
"""The slowest motion that counts, in pixels of ``SIDE`` a frame."""
NOISE = 3.0
"""A pixel that moves departs by so many times the median of those that the camera explains."""
SHARE = 0.5
SMALLEST, LARGEST = 0.01, 0.7
"""Share of the frame that must move, and that may."""
BORDER = 7
"""Pixels of ``SIDE`` that are ignored across a mask's border."""

_RIDGE = 1e-3 * np.eye(3, dtype=np.float32)

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


def motion_mask(clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What moves in the first frame of a clip, uint8 (T, H, W, 3) with T >= 2 -> (H, W) of STATIC, MOVING, IGNORED.

    A trimap: pixels near the border of the mask are ignored, and those that the camera loses from sight. So is all of
    a frame in which no motion is found, or in which so much moves that it cannot be told from the camera.
    """
    height, width = clip.shape[1:3]
    frames = [_grey(frame) for frame in clip]
    flow = optical_flow(frames)
    camera = camera_motion(flow, frames)
    gone = _out_of_sight(camera, len(frames) - 1)
    mask = _grouped(np.where(gone, 0, np.linalg.norm(flow - camera, axis=2)), difference(frames, camera))
    mask[gone] = IGNORED
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def optical_flow(frames: list[Grey]) -> Floats:
    """The mean motion a frame of the first frame's pixels: grey frames (h, w) -> (h, w, 2), to the right and down."""
    dis: Any = _dis()  # whose stub wants a flow to start from
    flows = [dis.calc(frames[0], later, None) / time for time, later in enumerate(frames[1:], start=1)]
    return np.asarray(np.mean(flows, axis=0), np.float32)


def camera_motion(flow: Floats, frames: list[Grey]) -> Floats:
    """The affine motion a frame that explains the first frame's rim best, as the flow."""
    places = _places(*flow.shape[:2])
    thin_places, thin_flow = (np.ascontiguousarray(maps[::2, ::2]) for maps in (places, flow))
    thin_frames = [np.ascontiguousarray(frame[::2, ::2]) for frame in frames]
    rim = np.abs(thin_places[..., 1:]).max(2) ** 8

    def misfit(motion: Floats) -> float:
        unlike = np.minimum(difference(thin_frames, thin_places @ (motion / np.float32(2))), UNLIKE)
        return float(np.vdot(rim, unlike))

    motion = best = min(_pans(flow), key=misfit)
    some, moved, share = thin_places.reshape(-1, 3), thin_flow.reshape(-1, 2), rim.reshape(-1, 1)
    for _ in range(ROUNDS):
        squared = ((moved - some @ motion) ** 2).sum(1, keepdims=True)
        weighted = some * share / (1 + squared) ** 2
        motion = np.linalg.solve(weighted.T @ some + _RIDGE, weighted.T @ moved)
    return places @ min(motion, best, key=misfit)


def _out_of_sight(camera: Floats, time: int) -> NDArray[np.bool_]:
    """Which pixels the camera's motion takes out of the last frame, or to its rim: bool (h, w)."""
    height, width = camera.shape[:2]
    x, y = np.arange(width) + time * camera[..., 0], np.arange(height)[:, None] + time * camera[..., 1]
    gone = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    return np.asarray(cv2.dilate(gone.astype(np.uint8), _disc(NEAR)), np.bool_)


def difference(frames: list[Grey], motion: Floats) -> Floats:
    """By how many grey values the last frame differs from the first, each pixel of which has that motion a frame."""
    height, width = frames[0].shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    right, down = (len(frames) - 1) * motion[..., 0], (len(frames) - 1) * motion[..., 1]
    there = cv2.remap(frames[-1], x + right, y + down, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.blur(cv2.absdiff(there, frames[0]), (3, 3)), np.float32)


def _pans(flow: Floats) -> list[Floats]:
    """Rest, and the flow in the middle of each cell at the frame's rim, as affine motions (3, 2)."""
    rows, columns = (np.linspace(0, size - 1, 2 * CELLS + 1)[1::2].astype(int) for size in flow.shape[:2])
    seen = flow[rows[:, None], columns]
    pans = [(0.0, 0.0), *seen[0], *seen[-1], *seen[1:-1, 0], *seen[1:-1, -1]]
    return [np.array([pan, (0, 0), (0, 0)], np.float32) for pan in pans]


def _grouped(departs: Floats, unlike: Floats) -> NDArray[np.uint8]:
    """How far pixels depart from the camera's motion, and how little it explains them, (h, w) -> the trimap."""
    explained = unlike <= UNEXPLAINED
    noise = float(np.median(departs[explained])) if explained.any() else 0.0
    moving = (cv2.dilate(unlike, _disc(NEAR)) > UNEXPLAINED) & (departs > max(LEAST, NOISE * noise))
    if moving.any():
        moving &= departs > SHARE * np.median(departs[moving])
    mask = _clean(moving.astype(np.uint8))
    if not SMALLEST <= mask.mean() <= LARGEST:
        return np.full_like(mask, IGNORED)
    return np.where(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _disc(BORDER)), np.uint8(IGNORED), mask)


def _clean(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without specks, and without holes that do not reach the frame's border."""
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(5)), np.uint8)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(5)), np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    large = [outline for outline in outlines if cv2.contourArea(outline) >= SMALLEST / 2 * mask.size]
    return np.asarray(cv2.drawContours(np.zeros_like(mask), large, -1, MOVING, cv2.FILLED), np.uint8)


def _grey(frame: NDArray[np.uint8]) -> Grey:
    height, width = frame.shape[:2]
    scale = SIDE / min(height, width)
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (round(width * scale), round(height * scale)), interpolation=kernel), np.uint8)


@lru_cache(maxsize=16)
def _places(height: int, width: int) -> Floats:
    """(height, width, 3): 1, x and y of each pixel, from -1 to 1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.stack([np.ones_like(x), x, y], 2)


@cache
def _dis() -> cv2.DISOpticalFlow:
    made = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    made.setFinestScale(0)
    return made


@cache
def _disc(side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
