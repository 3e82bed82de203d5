"""SIGKILL at random moments: the resumed table is bit-identical."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from smoke import FOUR, bench, reproduce

from bench.results import sha256


def _outcome(runs):
    """Everything of the results that may not depend on being killed."""
    found = {}
    for path in sorted(runs.glob("*/result.json")):
        result = json.loads(path.read_text())
        timing = ("cost", "hardware", "code")
        training = {k: v for k, v in result["training"].items() if k not in ("seconds", "images_per_second")}
        found[path.parent.name] = {k: v for k, v in result.items() if k not in timing} | {"training": training}
    for path in sorted(runs.glob("*/backbone.safetensors")):
        found[path.parent.name] = sha256(path)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    reproduce(runs)
    return runs, time.monotonic() - started


def test_killed_at_ten_random_moments_the_table_is_bit_identical(undisturbed, tmp_path):
    whole, seconds = undisturbed
    rng = random.Random(7)
    command = [sys.executable, "-m", "bench.cli", "reproduce", "imagenet-linear", "--suite", "smoke", "--methods", FOUR]
    kills = 0
    for _ in range(10):
        job = subprocess.Popen(
            [*command, "--runs", tmp_path, "--checkpoint-every", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            job.communicate(timeout=rng.uniform(0.25, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            job.send_signal(signal.SIGKILL)
            job.communicate()
            kills += 1
    assert kills >= 3, "most of the runs were killed while they worked"
    assert not [p for p in tmp_path.glob("*/result.json") if not (p.parent / "evidence.npz").exists()]
    reproduce(tmp_path)
    assert _outcome(tmp_path) == _outcome(whole)
    for file in (*tmp_path.glob("*/result.json"), *tmp_path.glob("*/card.json")):
        made = json.loads(file.read_text())
        assert made["cost"]["seconds"] >= made["training"].get("seconds", 0), "all attempts count"
    names = [p.name for p in (whole / "tables").iterdir()]
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "tables" / name).read_bytes() == (whole / "tables" / name).read_bytes()


def test_a_second_run_computes_nothing(undisturbed):
    runs, _ = undisturbed
    before = {p: p.stat().st_mtime_ns for p in runs.glob("*/result.json")}
    assert "8 runs, 0 to do" in reproduce(runs).stdout
    assert {p: p.stat().st_mtime_ns for p in runs.glob("*/result.json")} == before


def test_every_number_verifies_at_both_levels(undisturbed):
    runs, _ = undisturbed
    found = json.loads(bench("verify", "--runs", runs, runs, "--json").stdout)
    assert {v["level"] for v in found} == {"consistent"}
    assert len(found) == 4
    found = json.loads(bench("verify", "--runs", runs, runs, "--check", "--json").stdout)
    assert {v["level"] for v in found} == {"checked"}


def test_scratch_is_gone_when_runs_are_done(undisturbed):
    runs, _ = undisturbed
    assert not list(runs.glob("*/checkpoint.pt"))
    assert not list(runs.rglob("*.tmp"))


def test_evidence_is_small(undisturbed):
    runs, _ = undisturbed
    assert all(p.stat().st_size < 2**20 for p in runs.glob("*/evidence.npz"))


def test_the_command_of_a_cell_is_the_run_that_made_it(undisturbed):
    runs, _ = undisturbed
    for path in runs.glob("*/result.json"):
        words = json.loads(path.read_text())["command"].split()
        out = bench(*words[1:], "--runs", runs).stdout
        assert str(path.parent) in out
