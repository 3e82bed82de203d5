"""Detections as evidence: what is kept, how it is rounded, and that values come out the same again."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.average_precision import Detections
from bench.metrics.detection_evidence import compact, restore


def made(count, images=4, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (count, 2))
    return Detections(
        rng.integers(images, size=count), rng.integers(20, size=count), rng.random(count),
        np.concatenate([corner, corner + rng.uniform(1, 200, (count, 2))], axis=1),
    )  # fmt: skip


def test_rounding():
    found = restore(compact(made(60), 4))
    assert len(found.image) == 60
    assert (np.diff(found.image) >= 0).all()
    given = made(60)
    order = np.lexsort((-given.scores, given.image))
    assert np.array_equal(found.labels, given.labels[order])
    assert found.scores == pytest.approx(given.scores[order], rel=1e-3)
    assert found.boxes == pytest.approx(given.boxes[order], abs=0.0501)


def test_twice_is_once():
    once = compact(made(80), 4)
    twice = compact(restore(once), 4)
    assert all(np.array_equal(once[key], twice[key]) for key in once)


def test_the_hundred_best_of_an_image():
    given = made(500, images=2)
    evidence = compact(given, 3)
    assert evidence["count"].tolist() == [100, 100, 0]
    found = restore(evidence)
    for image in (0, 1):
        best = np.sort(given.scores[given.image == image])[::-1][:100]
        assert found.scores[found.image == image] == pytest.approx(best, rel=1e-3)


def test_eleven_bytes_each():
    evidence = compact(made(90), 4)
    assert sum(array.nbytes for array in evidence.values()) == 4 + 90 * 11


def test_none():
    nothing = compact(made(0), 3)
    assert nothing["count"].tolist() == [0, 0, 0]
    assert restore(nothing).boxes.shape == (0, 4)


def test_a_box_too_far():
    given = made(3)
    given.boxes[0, 2] = 7000
    with pytest.raises(ValueError, match="outside"):
        compact(given, 4)


def test_a_label_too_large():
    given = made(3)
    for label in (-1, 256):
        with pytest.raises(ValueError, match="a label outside 0 to 255"):
            compact(given._replace(labels=given.labels * 0 + label), 4)
