"""The masks agree with what the generators know, which flow never sees; and say nothing where nothing moves."""

import numpy as np
import pytest

from bench.data import catalog, flow
from bench.data.flow import IGNORED, MOVING, STATIC, motion_mask
from bench.data.moving import compose
from bench.data.scenes import render
from bench.data.scenes_motion import MOBILE, film


def noise(height=64, width=64, seed=0):
    """A texture with slopes of all directions, uint8 (H, W, 3)."""
    import cv2

    rough = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(rough, (0, 0), min(height, width) / 42).astype(float)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def shifted(image, right=0, down=0):
    return np.roll(image, (down, right), (0, 1))


def squared(image, left, top, side=24, seed=7):
    """The image with another texture's square on it."""
    out = image.copy()
    out[top : top + side, left : left + side] = noise(seed=seed)[:side, :side]
    return out


def agreement(found, truth):
    """Intersection over union of what moves, over the pixels that are not ignored; None where all are."""
    valid = found != IGNORED
    if not valid.any():
        return None
    both, either = ((found == MOVING) & truth & valid).sum(), (((found == MOVING) | truth) & valid).sum()
    return both / either if either else 0.0


def test_a_square_that_moves_over_a_still_texture():
    ground = noise()
    mask = motion_mask(np.stack([squared(ground, 20, 20), squared(ground, 24, 20)]))
    truth = np.zeros((64, 64), bool)
    truth[20:44, 20:44] = True
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {STATIC, MOVING, IGNORED}
    assert agreement(mask, truth) > 0.8
    assert mask[32, 32] == MOVING
    assert mask[4, 4] == STATIC
    assert (mask[32] == IGNORED).sum() >= 4, "the border is ignored on both sides"


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_the_camera_s_motion_is_no_motion_of_things(frames):
    ground = noise()
    clip = [squared(shifted(ground, t, -t), 20 - 2 * t, 20) for t in range(frames)]
    mask = motion_mask(np.stack(clip))
    truth = np.zeros((64, 64), bool)
    truth[20:44, 20:44] = True
    assert agreement(mask, truth) > 0.7


@pytest.mark.parametrize("right", [0, 3])
def test_where_nothing_moves_on_its_own_all_is_ignored(right):
    ground = noise()
    assert (motion_mask(np.stack([ground, shifted(ground, right)])) == IGNORED).all()


def test_frames_without_any_texture_are_ignored():
    assert (motion_mask(np.full((2, 40, 40, 3), 90, np.uint8)) == IGNORED).all()
    assert (motion_mask(np.stack([np.full((40, 40, 3), v, np.uint8) for v in (0, 255)])) == IGNORED).all()


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (28, 28), (240, 320)])
def test_frames_of_any_shape(shape):
    height, width = shape
    ground = noise(height, width)
    side, left, top = min(shape) // 3, width // 3, height // 3
    clip = np.stack([ground, ground])
    for frame, at in zip(clip, (left, left + side // 6), strict=True):
        frame[top : top + side, at : at + side] = noise(height, width, 5)[:side, :side]
    truth = np.zeros(shape, bool)
    truth[top : top + side, left : left + side] = True
    mask = motion_mask(clip)
    assert mask.shape == shape
    assert agreement(mask, truth) > 0.6


def test_the_same_clip_gives_the_same_mask():
    clip = np.stack([scene.image for scene in film("train", 3, 2)])
    assert np.array_equal(motion_mask(clip), motion_mask(clip.copy()))


def test_the_camera_s_motion_is_found():
    ground = noise()
    frames = [flow._grey(frame) for frame in (ground, shifted(ground, 2, 1))]
    camera = flow.camera_motion(flow.optical_flow(frames), frames) * 64 / flow.SIDE
    assert np.abs(camera[8:-8, 8:-8] - (2, 1)).max() < 0.3


@pytest.mark.parametrize(("source", "least"), [("moving", 0.7), ("scenes", 0.5)])
def test_masks_agree_with_the_truth_on_average(source, least):
    found, missed = [], 0
    for index in range(60):
        if source == "scenes":
            scenes = film("train", index, 2)
            clip = np.stack([scene.image for scene in scenes])
            truth = np.array([False, *MOBILE])[scenes[0].mask]
        else:
            clip, truth = compose(render("train", index).image, f"train/{index}", 2)
        score = agreement(motion_mask(clip), truth)
        if score is None:
            missed += truth.mean() > 0.03
        elif truth.mean() > 0.01:
            found.append(score)
    assert len(found) > 30
    assert np.mean(found) > least, np.round(found, 2)
    assert missed <= 9


def test_masks_over_photographs(bench_data, tmp_path):
    where = {"root": bench_data, "cache": tmp_path}
    data = catalog.open_dataset("tiny-imagenet-50", ("val",), **where)
    found = []
    for index in range(0, 2500, 40):
        clip, truth = compose(data[index].image.permute(1, 2, 0).numpy(), data.ids[index], 2)
        score = agreement(motion_mask(clip), truth)
        if score is not None and truth.mean() > 0.01:
            found.append(score)
    assert len(found) > 40
    assert np.mean(found) > 0.75
