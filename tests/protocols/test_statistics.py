"""What a column is under resamples of the test examples, for every kind of evidence that a protocol leaves."""

import subprocess
import sys

import numpy as np
import pytest

from bench import registry
from bench.metrics.average_precision import Detections, Objects
from bench.metrics.detection_evidence import compact, compact_objects
from bench.metrics.miou import Confusions
from bench.protocols import definitions

IMAGES, CLASSES = 30, ["cat", "dog", "owl"]
SETTINGS = ["fc6-8", "all"]


def ranks(rng):
    """Two stages, seven classes."""
    return {
        "rank": rng.integers(0, 7, (2, IMAGES)).astype(np.uint8),
        "prediction": rng.integers(0, 7, (2, IMAGES)).astype(np.uint16),
        "classes": np.array(7, np.uint16),
        "stages": np.array(["conv1", "conv2"]),
    }


def scores(rng):
    return {
        "scores": rng.normal(size=(2, IMAGES, 3)).astype(np.float32),
        "truth": rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4], size=(IMAGES, 3)).astype(np.int8),
        "settings": np.array(SETTINGS),
        "classes": np.array(CLASSES),
        "ap": np.array("11-point"),
        "tie_break": np.array(True),
    }


def boxes(rng, count):
    corner = rng.uniform(0, 30, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(20, 40, (count, 2))], 1)


def detections(rng):
    n = 200
    parts = [(rng.integers(0, IMAGES, n), rng.integers(0, 3, n), rng.random(n), boxes(rng, n)) for _ in SETTINGS]
    found = [compact(Detections(*part), IMAGES) for part in parts]
    image = np.sort(rng.integers(0, IMAGES, 60))
    known = Objects(image, rng.integers(0, 3, 60), boxes(rng, 60), rng.random(60) < 0.1, IMAGES)
    return {
        "count": np.stack([one["count"] for one in found]),
        **{key: np.concatenate([one[key] for one in found]) for key in ("label", "score", "box")},
        **compact_objects(known),
        "chance": np.full((3, 3), 0.1),
        "settings": np.array(SETTINGS),
        "classes": np.array(CLASSES),
        "thresholds": np.array([0.5, 0.6, 0.75]),
        "ap": np.array("area"),
    }


def confusions(rng):
    found = [Confusions.of(rng.integers(0, 3, (IMAGES, 3, 3)) * rng.integers(0, 2, (IMAGES, 3, 3))) for _ in SETTINGS]
    return {
        "cells": np.stack([one.cells for one in found]),
        "cell": np.concatenate([one.cell for one in found]),
        "pixels": np.concatenate([one.pixels for one in found]),
        "settings": np.array(SETTINGS),
        "classes": np.array(CLASSES),
    }


EVIDENCE = {
    "imagenet-linear": ranks,
    "voc07-classification": scores,
    "voc07-detection": detections,
    "voc12-segmentation": confusions,
}


def repeated(evidence, name, count):
    """The evidence of a test set in which image i stands ``count[i]`` times."""
    copies = np.repeat(np.arange(IMAGES), count)
    if name == "imagenet-linear":
        return {**evidence, "rank": evidence["rank"][:, copies], "prediction": evidence["prediction"][:, copies]}
    return {**evidence, "scores": evidence["scores"][:, copies], "truth": evidence["truth"][copies]}


@pytest.fixture(params=EVIDENCE)
def measured(request):
    """(protocol, its evidence, its columns)."""
    evidence = EVIDENCE[request.param](np.random.default_rng(3))
    return request.param, evidence, registry.entry("protocols", request.param).load().columns(evidence)


def test_every_protocol_is_here():
    assert EVIDENCE.keys() == set(registry.names("protocols"))


def test_each_example_once_is_the_value_of_every_column(measured):
    protocol, evidence, columns = measured
    statistic = definitions.load(protocol).statistic
    for name, column in columns.items():
        once = statistic(evidence, name)(np.ones((1, IMAGES), np.float32))
        assert once == pytest.approx([column["value"]]), name


def test_intervals_contain_the_value_and_stay_within_what_there_is(measured):
    for column in measured[2].values():
        assert 0 <= column["low"] <= column["value"] <= column["high"] <= 100


@pytest.mark.parametrize("protocol", ["imagenet-linear", "voc07-classification"])
def test_counts_are_copies_of_examples(protocol):
    rng = np.random.default_rng(5)
    evidence = EVIDENCE[protocol](rng)
    count = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES))
    statistic = definitions.load(protocol).statistic
    columns = registry.entry("protocols", protocol).load().columns(repeated(evidence, protocol, count))
    for name, column in columns.items():
        found = statistic(evidence, name)(count[None].astype(np.float32))
        assert found == pytest.approx([column["value"]], abs=1e-4), name


def test_a_column_that_is_not_there(measured):
    protocol, evidence, _ = measured
    statistic = definitions.load(protocol).statistic
    for column in ("top1@conv9", "map@conv9", "ap_cow@all", "iou_cow@all"):
        with pytest.raises((KeyError, ValueError, IndexError)):
            statistic(evidence, column)


def test_no_torch():
    code = (
        "import sys; from bench import registry; from bench.protocols import definitions;"
        "[definitions.load(name).statistic for name in registry.names('protocols')];"
        "print({'torch', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
