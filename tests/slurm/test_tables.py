"""Whatever happens to who submits, and to the disk: the table is bit for bit that of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest
from on_slurm import DAWDLE, PATIENCE, attempts, clean, outcome, trains, until
from smoke import FOUR


def test_two_tables_are_submitted_from_one_shell_and_watched_from_another(cluster, profile, tmp_path):
    """Every protocol, four methods, two seeds."""
    table = ("--suite", "smoke", "--methods", FOUR, "--seeds", "0,1")
    out = cluster.reproduce(tmp_path / "slurm", profile('time = "00:30:00"\npack = 6\n'), *table, "voc")
    assert "40 runs, 40 to do" in out
    assert "submitted 40 runs" in out
    watcher = cluster.popen("status", "imagenet-linear", "voc", "--watch", "--runs", tmp_path / "slurm")
    cluster.reproduce(tmp_path / "inline", "inline", *table, "voc")
    watched = watcher.communicate(timeout=2 * PATIENCE)[0]
    assert watcher.returncode == 0, watched
    assert "QUEUED" in watched
    assert watched.endswith("\n40 runs: 40 DONE\n")
    assert outcome(cluster, tmp_path / "slurm", table) == outcome(cluster, tmp_path / "inline", table)
    voc = [
        cluster.bench("table", "voc", *table[:2], "-f", "csv", "--runs", tmp_path / on) for on in ("slurm", "inline")
    ]
    assert voc[0] == voc[1]
    clean(tmp_path / "slurm")


def test_two_submitters_at_once_submit_each_run_once(cluster, one, undisturbed, tmp_path):
    words = ("reproduce", "imagenet-linear", *one, "--runs", tmp_path, "--on", "dev", "--checkpoint-every", 0)
    both = [cluster.popen(*words) for _ in range(2)]
    said = [job.communicate(timeout=PATIENCE)[0] for job in both]
    assert [job.returncode for job in both] == [0, 0], said
    assert sum("submitted 2 runs" in text for text in said) == 1, said
    cluster.wait(tmp_path)
    assert len(attempts(tmp_path)) == len(attempts(tmp_path, "evaluate")) == 1
    assert outcome(cluster, tmp_path, one) == undisturbed
    clean(tmp_path)


def test_a_submitter_that_dies_between_sbatch_and_its_record_loses_nothing(cluster, one, undisturbed, tmp_path):
    fatal = tmp_path / "bin" / "sbatch"
    fatal.parent.mkdir()
    fatal.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@"\nkill -9 $PPID\n')
    fatal.chmod(0o755)
    runs = tmp_path / "runs"
    words = ("reproduce", "imagenet-linear", *one, "--runs", runs, "--on", "dev", "--checkpoint-every", 0)
    killed = cluster.popen(*words, PATH=f"{fatal.parent}:{os.environ['PATH']}", DAWDLE=DAWDLE)
    killed.communicate(timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    assert not list(runs.glob("*/queue.json")), "the id was not written down"
    out = cluster.reproduce(runs, "dev", *one)
    assert "1 runs are in the queue or running already" in out
    assert "submitted 1 runs" in out
    cluster.wait(runs)
    assert len(attempts(runs)) == 1
    assert outcome(cluster, runs, one) == undisturbed
    clean(runs)


def test_a_full_disk_fails_the_run_and_retry_goes_on(cluster, one, undisturbed, tmp_path):
    runs = tmp_path / "small"
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", runs], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        cluster.reproduce(runs, "dev", *one, DAWDLE=DAWDLE)
        until(lambda: trains(runs))
        with pytest.raises(OSError, match="No space left"), (runs / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        until(lambda: not {"QUEUED", "RUNNING"} & set(cluster.states(runs).values()), pause=1)
        rows = {r["run"].split("-")[0]: r for r in json.loads(cluster.bench("status", "--runs", runs, "--json"))}
        assert (rows["pretrain"]["state"], rows["evaluate"]["state"]) == ("FAILED", "BLOCKED"), rows
        assert "its pretraining is FAILED" in rows["evaluate"]["reason"]
        (runs / "filler").unlink()
        assert "submitted 2 runs" in cluster.bench("retry", "pretrain-*", "--on", "dev", "--runs", runs)
        cluster.wait(runs)
        assert outcome(cluster, runs, one) == undisturbed
        clean(runs)
    finally:
        subprocess.run(["umount", "--lazy", runs], check=True)


def test_a_cancelled_job_is_not_put_back_and_can_be_retried(cluster, one, undisturbed, tmp_path):
    cluster.reproduce(tmp_path, "dev", *one, DAWDLE=DAWDLE)
    until(lambda: trains(tmp_path))
    cluster.bench("cancel", "*", "--runs", tmp_path)
    until(lambda: not {"QUEUED", "RUNNING"} & set(cluster.states(tmp_path).values()), pause=1)
    assert {run.split("-")[0]: state for run, state in cluster.states(tmp_path).items()} == {
        "pretrain": "CANCELLED",
        "evaluate": "BLOCKED",
    }
    assert not cluster.call("squeue", "--noheader", "--name", attempts(tmp_path)[0]["job_name"]).strip()
    cluster.bench("retry", "evaluate-*", "--on", "dev", "--runs", tmp_path)
    cluster.wait(tmp_path)
    assert outcome(cluster, tmp_path, one) == undisturbed
    clean(tmp_path)
