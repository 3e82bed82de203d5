"""The study by which a suite's pretext settings are chosen, at toy size."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

TUNE = Path(__file__).parents[1] / "docs" / "reproduction" / "tune.py"
STUDY = """
suite = "smoke"
seed = 100
data = { train = ["unlabelled"], test = ["heldout"] }
pretrain = { epochs = 1, schedule = "cosine" }

[points]
rotation = [{ lr = 0.5 }, { lr = 2.0, options = { rotations = 2 } }]
supervised = [{ epochs = 2 }]
"""


@pytest.fixture
def tune(tmp_path):
    """A function: what the study came to, a line a point, and the process."""
    study = tmp_path / "study.toml"

    def run(text):
        study.write_text(text)
        arguments = [study, "--data", tmp_path, "--runs", tmp_path / "runs", "--jobs", "2"]
        environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, str(TUNE), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return list(csv.DictReader(study.with_suffix(".csv").open())), done

    return run


def test_each_point_is_trained_once_and_is_a_line(tune, tmp_path):
    lines, done = tune(STUDY)
    assert done.returncode == 0, done.stderr
    assert [(line["method"], line["metric"], float(line["chance"])) for line in lines] == [
        ("rotation", "accuracy", 0.25),
        ("rotation", "accuracy", 0.5),
        ("supervised", "best held-out top1 of the probes", 5.0),
    ]
    assert all(line["images"] == "160" for line in lines[:2])
    assert 0 < float(lines[0]["value"]) <= 1
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/card.json")}
    assert tune(STUDY)[0] == lines
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/card.json")} == written


def test_a_point_that_cannot_be_trained_is_told_and_left_out(tune):
    lines, done = tune(STUDY.replace("rotations = 2", "rotations = 3"))
    assert done.returncode == 1
    assert "rotation knows no rotations 3" in done.stderr
    assert [line["method"] for line in lines] == ["rotation", "supervised"]


def test_a_study_can_probe_every_point(tune):
    lines, done = tune(STUDY.replace("[points]", "probed = true\n[points]"))
    assert done.returncode == 0, done.stderr
    assert [(line["method"], line["metric"], float(line["chance"])) for line in lines] == [
        ("rotation", "accuracy", 0.25),
        ("rotation", "best held-out top1 of the probes", 5.0),
        ("rotation", "accuracy", 0.5),
        ("rotation", "best held-out top1 of the probes", 5.0),
        ("supervised", "best held-out top1 of the probes", 5.0),
    ]
    assert all(0 <= float(line["value"]) <= 100 for line in lines)
