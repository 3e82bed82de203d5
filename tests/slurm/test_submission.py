"""Submitting: much at once, and what sbatch refuses."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import submitit

from bench import plan as planning
from bench import suite as suites
from bench.errors import BenchError
from bench.launch import state
from bench.launch.base import Work
from bench.launch.profile import Profile
from bench.launch.slurm import Slurm
from bench.runfolder import RunFolder

SINGLE = 12
"""Submissions by which one ``executor.submit`` is timed."""


@pytest.fixture
def here(cluster, monkeypatch):
    """The cluster's variables in this process."""
    for name in ("SLURM_CONF", "DEV_SLURM"):
        monkeypatch.setenv(name, cluster.environment[name])
    yield
    cluster.call("scancel", "--user", os.getuid())


def held(**more: object) -> Profile:
    """Jobs that never start."""
    default = {"memory": "1G", "time": "00:30:00", "slurm": {"hold": True, **more}}
    return Profile.model_validate({"name": "held", "title": "t", "launcher": "slurm", "default": default})


def work(runs: Path, count: int) -> Work:
    suite = suites.load("smoke")
    made = [planning.pretrain(suite, "random", lambda role, split: "0" * 16, seed=seed) for seed in range(count)]
    return Work(runs, tuple(RunFolder.create(runs, run.spec).id for run in made), runs, runs, 0, 60.0)


def test_500_runs_ten_times_faster_than_one_by_one(here, tmp_path, capsys):
    executor = submitit.SlurmExecutor(tmp_path / "single")
    executor.update_parameters(time=30, mem="1G", additional_parameters={"hold": True})
    started = time.monotonic()
    for number in range(SINGLE):
        executor.submit(abs, number)
    one_by_one = (time.monotonic() - started) / SINGLE * 500
    asked = work(tmp_path / "runs", 500)
    said: list[str] = []
    started = time.monotonic()
    Slurm(held()).launch(asked, said.append)
    at_once = time.monotonic() - started
    with capsys.disabled():
        print(f"\n  500 runs: {at_once:.1f} s; by executor.submit {one_by_one:.0f} s: {one_by_one / at_once:.0f} x")
    assert one_by_one > 10 * at_once
    assert "submitted 500 runs" in said[0]
    standings = state.reconcile(state.folders(asked.runs))
    assert {standing.state for standing in standings.values()} == {"QUEUED"}
    assert {standing.reason for standing in standings.values()} == {"JobHeldUser"}
    Slurm(held()).launch(replace(asked, ids=asked.ids[:3]), said.append)
    assert said[-1] == "3 runs are in the queue or running already"


def test_what_sbatch_refuses_is_one_line(here, tmp_path):
    asked = work(tmp_path, 1)
    wrong = Profile.model_validate(held().model_dump(exclude_unset=True) | {"pretrain": {"partition": "nonsense"}})
    with pytest.raises(BenchError, match="sbatch refuses: Batch job submission failed: Invalid partition") as refused:
        Slurm(wrong).launch(asked, print)
    assert str(refused.value).count("\n") == 0
    (folder,) = state.folders(tmp_path)
    assert state.reconcile([folder])[folder.id].state == "PENDING"
    Slurm(held()).launch(asked, print)
    assert state.reconcile([folder])[folder.id].state == "QUEUED"


def test_cancelled_in_the_queue_and_forgotten_by_slurm(here, cluster, tmp_path):
    asked = work(tmp_path, 3)
    Slurm(held()).launch(asked, print)
    cluster.bench("cancel", asked.ids[0], "--runs", tmp_path)
    first, second, third = (RunFolder(tmp_path / run_id) for run_id in asked.ids)
    assert state.reconcile([first])[first.id].state == "CANCELLED"
    assert first.state()[0] == "CANCELLED", "written down"
    second.queue("slurm", "999999_0", "bench-00000000")
    assert state.reconcile([second])[second.id].state == "LOST"
    third.queue("slurm", third.standing().job, "bench-of-another")
    assert state.reconcile([third])[third.id].state == "LOST", "an id that was given out again"


def test_a_controller_that_is_away_for_a_moment_is_asked_again(here, cluster, tmp_path, monkeypatch):
    from bench.launch import slurm

    cluster.dev("stop", "slurmctld")
    asked = work(tmp_path, 1)
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: cluster.dev("start", "slurmctld"))
    said: list[str] = []
    with pytest.warns(UserWarning, match="Unable to contact slurm controller .*; asking again in 2 s"):
        Slurm(held()).launch(asked, said.append)
    assert "submitted 1 runs" in said[0]
