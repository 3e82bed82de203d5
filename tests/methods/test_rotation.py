"""Exact quarter turns in the released code's order of labels, and eighth turns whose borders tell nothing."""

import math

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench.backbones.base import build
from bench.data import transforms
from bench.data.loader import sample_generator
from bench.errors import BenchError
from bench.methods.rotation import Rotation, turn


def _images(side=6, count=2):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _flipud(x):
    return x.flip(-2)


def _fliplr(x):
    return x.flip(-1)


def _transpose(x):
    return x.transpose(-1, -2)


def test_quarter_turns_are_the_released_flips_and_transposes_in_their_order():
    images = _images()
    by_label = [turn(images, degrees, 6) for degrees in (0, 90, 180, 270)]
    released = [images, _flipud(_transpose(images)), _fliplr(_flipud(images)), _transpose(_flipud(images))]
    for ours, theirs in zip(by_label, released, strict=True):
        assert torch.equal(ours, theirs)


def test_quarter_turns_by_hand():
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    turned = [turn(image, degrees, 2)[0, 0].tolist() for degrees in (0, 90, 180, 270)]
    assert turned == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]


def test_turning_back_undoes_a_quarter_exactly():
    images = _images(7)
    for degrees in (90, 180, 270):
        assert torch.equal(turn(turn(images, degrees, 7), -degrees, 7), images)


def test_an_eighth_turn_goes_counter_clockwise_and_two_are_a_quarter():
    image = torch.zeros(1, 3, 41, 41, dtype=torch.uint8)
    image[..., 20, 28:40] = 255  # a bar from the middle to the right
    turned = turn(image, 45, 41)[0, 0].float()
    rows, columns = (turned > 100).nonzero(as_tuple=True)
    assert rows.float().mean() < 14  # up
    assert columns.float().mean() > 26  # and right

    y, x = torch.meshgrid(torch.arange(81.0), torch.arange(81.0), indexing="ij")
    smooth = (127 + 60 * (x / 9).sin() + 60 * (y / 13).cos()).round().byte().expand(1, 3, 81, 81)
    twice = turn(turn(smooth, 45, 81), 45, 41)
    assert (twice.int() - turn(smooth, 90, 41).int()).abs().max() <= 4


def test_of_eight_rotations_every_one_shows_whole_pixels_only():
    task = Rotation(build("alexnet-smoke"), rotations=8)
    assert task.crop_side >= math.sqrt(2) * task.side
    assert (task.crop_side - task.side) % 2 == 0
    white = torch.full((1, 3, task.crop_side, task.crop_side), 255, dtype=torch.uint8)
    for degrees in task.degrees:
        shown = turn(white, degrees, task.side)
        assert shown.shape == (1, 3, task.side, task.side)
        assert shown.min() == 255, "an empty corner would give the answer away"


@pytest.mark.parametrize(
    ("option", "degrees"),
    [(2, [0, 180]), (4, [0, 90, 180, 270]), (8, [45 * k for k in range(8)]), ([90, 270], [90, 270])],
)
def test_options_and_their_chance(option, degrees):
    task = Rotation(build("alexnet-smoke"), rotations=option)
    assert task.degrees == degrees
    assert task.chance == 1 / len(degrees)
    assert task.classifier.out_features == len(degrees)


@pytest.mark.parametrize("option", [0, 1, 3, 16, [90], [0, 30], [0, 0], [0, 360], "4", None])
def test_other_rotations_are_refused(option):
    with pytest.raises(BenchError, match="rotation knows no rotations"):
        Rotation(build("alexnet-smoke"), rotations=option)


def test_with_quarters_alone_the_network_sees_the_crop_itself():
    """Bit for bit what version 1 always showed: eighths need a larger crop, quarters must not get one."""
    task, sample = Rotation(build("alexnet-smoke")), ToyImages(8)[3]
    view = task.view(sample, sample_generator(0, 0, 3))
    generator = sample_generator(0, 0, 3)
    crop = transforms.flip(transforms.random_resized_crop(sample.image, 28, generator), generator)
    assert torch.equal(view, crop)
    assert torch.equal(turn(view[None], 0, 28)[0], crop)


@pytest.mark.parametrize("option", [4, 8, [90, 270]])
def test_the_picture_turns_right_answers_back(option):
    from bench.data.batch import Batch

    task = Rotation(build("alexnet-smoke"), rotations=option).eval()
    views = torch.stack([task.view(ToyImages(8)[i], np.random.default_rng(i)) for i in range(3)])
    batch = Batch(views, torch.arange(3), torch.full((3,), -1))
    with torch.no_grad():
        drawn = task.picture(batch, torch.Generator())
        upright = turn(views, 0, task.side)
        for column, degrees in enumerate(task.degrees):
            said = task._logits(turn(views, degrees, task.side)).argmax(1)
            for row in range(3):
                right = task.degrees[said[row]] == degrees
                assert torch.equal(drawn[row, 2 * column + 1], upright[row]) == right
    assert drawn.shape == (3, 2 * len(task.degrees), 3, task.side, task.side)
