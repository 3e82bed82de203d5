"""On a real Slurm: whatever happens to its jobs, the table is bit for bit that of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import until
from smoke import FOUR

from bench.files import read_json
from bench.results import sha256
from bench.suite import _FOLDER

DAWDLE = "0.15"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """smoke, with a pretraining of 60 updates: 9 s at DAWDLE."""
    file = tmp_path_factory.mktemp("suite") / "slow.toml"
    text = (_FOLDER / "smoke.toml").read_text()
    assert "epochs = 1\n" in text
    file.write_text(text.replace("epochs = 1\n", "epochs = 12\n", 1))
    return file


@pytest.fixture(scope="module")
def one(suite):
    """The arguments of a table of one row."""
    return "--suite", suite, "--methods", "dawdler"


@pytest.fixture(scope="module")
def undisturbed(cluster, one, tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    cluster.reproduce(runs, "inline", *one)
    return outcome(cluster, runs, one)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """A function: the file of a profile for the dev cluster, with these lines in its ``[default]``."""

    def make(default: str) -> Path:
        file = tmp_path_factory.mktemp("profile") / "test.toml"
        file.write_text('title = "t"\nlauncher = "slurm"\nsignal_seconds = 30\n[default]\nmemory = "2G"\n' + default)
        return file

    return make


@pytest.fixture(scope="module", autouse=True)
def timed_out(cluster, one, profile, tmp_path_factory):
    """Runs under a limit of one minute, submitted before all else: Slurm looks at limits twice a minute."""
    runs = tmp_path_factory.mktemp("timed-out")
    cluster.reproduce(runs, profile('time = "00:01:00"\n'), *one, DAWDLE="0.8")
    return runs


def outcome(cluster, runs, table):
    """All of a table's runs that may not depend on what happened to them, and the table."""
    found = {}
    for path in sorted(runs.glob("*/result.json")):
        result = read_json(path)
        training = {k: v for k, v in result["training"].items() if k not in ("seconds", "images_per_second")}
        timing = ("cost", "hardware", "code", "training")
        found[path.parent.name] = {k: v for k, v in result.items() if k not in timing} | {"training": training}
    for path in sorted(runs.glob("*/backbone.safetensors")):
        found[path.parent.name] = sha256(path)
    drawn = cluster.bench("table", "imagenet-linear", *table[:2], "--runs", runs, "--format", "csv")
    return found, drawn


def attempts(runs, kind="pretrain"):
    (folder,) = runs.glob(f"{kind}-dawdler-*")
    return [read_json(folder / f"attempt-{n + 1}.json") for n in range(len(list(folder.glob("attempt-*.json"))))]


def trains(runs):
    """Whether the dawdler has begun to train."""
    return any(file.stat().st_size for file in runs.glob("pretrain-dawdler-*/checkpoint.pt"))


def clean(runs):
    """Nothing half done is left, and no run was completed twice."""
    assert not list(runs.glob("*/checkpoint.pt"))
    assert not [path for path in runs.rglob("*.tmp") if ".cache" not in path.parts]
    assert not list(runs.glob("*/queue.json"))
    for folder in [path.parent for path in runs.glob("*/spec.json")]:
        states = [read_json(path)["state"] for path in folder.glob("attempt-*.json")]
        assert states.count("DONE") == 1, (folder.name, states)
        assert "RUNNING" not in states or len(states) > 1


def test_a_table_is_submitted_from_one_shell_and_watched_from_another(cluster, profile, tmp_path):
    table = ("--suite", "smoke", "--methods", FOUR, "--seeds", "0,1")
    out = cluster.reproduce(tmp_path / "slurm", profile('time = "00:30:00"\npack = 3\n'), *table)
    assert "16 runs, 16 to do" in out
    assert "submitted 16 runs" in out
    watcher = cluster.popen("status", "imagenet-linear", "--watch", "--runs", tmp_path / "slurm")
    cluster.reproduce(tmp_path / "inline", "inline", *table)
    watched = watcher.communicate(timeout=120)[0]
    assert watcher.returncode == 0, watched
    assert "QUEUED" in watched
    assert watched.rstrip().endswith("DONE")
    assert cluster.bench("status", "imagenet-linear", "--watch", "--runs", tmp_path / "slurm").count("DONE") == 16
    assert outcome(cluster, tmp_path / "slurm", table) == outcome(cluster, tmp_path / "inline", table)
    clean(tmp_path / "slurm")


def test_two_submitters_at_once_submit_each_run_once(cluster, one, undisturbed, tmp_path):
    words = ("reproduce", "imagenet-linear", *one, "--runs", tmp_path, "--on", "dev", "--checkpoint-every", 0)
    both = [cluster.popen(*words) for _ in range(2)]
    said = [job.communicate(timeout=120)[0] for job in both]
    assert [job.returncode for job in both] == [0, 0], said
    assert sum("submitted 2 runs" in text for text in said) == 1, said
    cluster.wait(tmp_path)
    assert len(attempts(tmp_path)) == len(attempts(tmp_path, "evaluate")) == 1
    assert outcome(cluster, tmp_path, one) == undisturbed
    clean(tmp_path)


def test_preempted_it_saves_makes_room_and_goes_on(cluster, one, profile, undisturbed, tmp_path):
    all_gpus = 'partition = "preempt"\ntime = "00:30:00"\nslurm = { gres = "gpu:4" }\n'
    cluster.reproduce(tmp_path, profile(all_gpus), *one, DAWDLE="0.4")
    until(lambda: trains(tmp_path))
    cluster.call("srun", "--partition=gpu", "--nodes=2", "--gres=gpu:4", "--mem=100M", "--time=1", "sleep", "1")
    cluster.wait(tmp_path)
    first, last = attempts(tmp_path)
    assert (first["state"], first["restarts"], last["restarts"]) == ("PREEMPTED", 0, 1)
    assert first["job"] == last["job"]
    assert last["checkpoint"] is not None, "it went on from there"
    assert outcome(cluster, tmp_path, one) == undisturbed
    clean(tmp_path)


def test_slurmctld_may_be_away(cluster, one, undisturbed, tmp_path):
    cluster.reproduce(tmp_path, "dev", *one, DAWDLE=DAWDLE)
    until(lambda: trains(tmp_path))
    cluster.dev("stop", "slurmctld")
    try:
        assert set(cluster.states(tmp_path).values()) <= {"RUNNING", "QUEUED", "DONE"}
    finally:
        cluster.dev("start", "slurmctld")
    cluster.wait(tmp_path)
    assert len(attempts(tmp_path)) == 1
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
    killed.communicate(timeout=60)
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
        until(lambda: not {"QUEUED", "RUNNING"} & set(cluster.states(runs).values()), 60, pause=1)
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
    until(lambda: not {"QUEUED", "RUNNING"} & set(cluster.states(tmp_path).values()), 60, pause=1)
    assert {run.split("-")[0]: state for run, state in cluster.states(tmp_path).items()} == {
        "pretrain": "CANCELLED",
        "evaluate": "BLOCKED",
    }
    assert not cluster.call("squeue", "--noheader", "--name", attempts(tmp_path)[0]["job_name"]).strip()
    cluster.bench("retry", "evaluate-*", "--on", "dev", "--runs", tmp_path)
    cluster.wait(tmp_path)
    assert outcome(cluster, tmp_path, one) == undisturbed
    clean(tmp_path)


def test_a_lost_node_is_noticed_and_its_run_goes_on_elsewhere(cluster, one, undisturbed, tmp_path):
    cluster.reproduce(tmp_path, "dev", *one, DAWDLE="0.5")
    until(lambda: trains(tmp_path))
    (node,) = cluster.call("squeue", "-h", "--name", attempts(tmp_path)[0]["job_name"], "-o", "%N").split()
    cluster.dev("lose", node)
    try:
        cluster.wait(tmp_path)
    finally:
        cluster.dev("start", node)
    first, last = attempts(tmp_path)
    assert (first["job"], first["restarts"]) == (last["job"], 0)
    assert last["restarts"] == 1
    assert last["checkpoint"] is not None
    assert outcome(cluster, tmp_path, one) == undisturbed


def test_timed_out_it_saves_and_goes_on(cluster, one, undisturbed, timed_out):
    cluster.wait(timed_out, 150)
    found = attempts(timed_out)
    assert {attempt["state"] for attempt in found[:-1]} == {"TIMEOUT"}, found
    assert len(found) >= 2
    assert [attempt["restarts"] for attempt in found] == list(range(len(found)))
    assert outcome(cluster, timed_out, one) == undisturbed
    clean(timed_out)
