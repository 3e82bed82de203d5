"""Preempted, out of time, on a lost node, without a controller: the table is bit for bit that of an undisturbed run."""

from __future__ import annotations

import pytest
from on_slurm import DAWDLE, attempts, clean, outcome, trains, until


@pytest.fixture(scope="module", autouse=True)
def timed_out(cluster, one, profile, tmp_path_factory):
    """Runs under a limit of one minute, submitted before all else: Slurm looks at limits twice a minute."""
    runs = tmp_path_factory.mktemp("timed-out")
    cluster.reproduce(runs, profile('time = "00:01:00"\n'), *one, DAWDLE="0.8")
    return runs


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


def test_timed_out_it_saves_and_goes_on(cluster, one, undisturbed, timed_out):
    cluster.wait(timed_out)
    found = attempts(timed_out)
    assert {attempt["state"] for attempt in found[:-1]} == {"TIMEOUT"}, found
    assert len(found) >= 2
    assert [attempt["restarts"] for attempt in found] == list(range(len(found)))
    assert outcome(cluster, timed_out, one) == undisturbed
    clean(timed_out)


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
    clean(tmp_path)
