"""The body of a job: what it is handed, what the signals ask of it, when it has queued in vain."""

import json
import os
import subprocess
import sys

import pytest
from smoke import bench

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.launch.base import Work, loaders
from bench.launch.job import describe, ranks_from_slurm
from bench.runfolder import RunFolder

SPEC = {"kind": "pretrain", "method": "m", "backbone": "b", "suite": "s", "seed": 0}


@pytest.fixture
def in_job(monkeypatch):
    """A function: this process is the ``restarts``-th start of a job."""

    def be(job, restarts):
        for name, value in (("JOB_ID", "99"), ("ARRAY_JOB_ID", job), ("ARRAY_TASK_ID", "0"), ("JOB_NAME", "n")):
            monkeypatch.setenv(f"SLURM_{name}", value)
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))

    return be


def test_a_later_start_of_the_same_job_takes_over_from_a_live_process(tmp_path, in_job):
    folder = RunFolder.create(tmp_path, SPEC)
    in_job("7", 0)
    old = folder.take("slurm")
    with pytest.raises(BenchError, match="is being executed"):
        folder.take("slurm")
    in_job("8", 1)
    with pytest.raises(BenchError, match="is being executed"):
        folder.take("slurm")
    in_job("7", 1)
    new = folder.take("slurm")
    assert (new.number, new.record["job"], new.record["restarts"]) == (2, "7_0", 1)
    with pytest.raises(BenchError, match="superseded"):
        old.write_log({"update": 1})
    assert not (folder.path / "log.jsonl").exists()


def test_queueing_again_without_coming_further_ends(tmp_path, in_job):
    folder = RunFolder.create(tmp_path, SPEC)
    for restart in range(3):
        in_job("7", restart)
        folder.take("slurm", requeues=2).end("PREEMPTED")
    (folder.path / "checkpoint.pt").write_bytes(b"x")
    in_job("7", 3)
    folder.take("slurm", requeues=2).end("PREEMPTED")
    for restart in (4, 5):
        in_job("7", restart)
        folder.take("slurm", requeues=2).end("PREEMPTED")
    in_job("7", 6)
    with pytest.raises(BenchError, match="put back into the queue 3 times and came no further"):
        folder.take("slurm", requeues=2)
    assert folder.state()[0] == "FAILED"
    in_job("8", 0)
    folder.take("slurm", requeues=2)


def test_ranks_are_those_of_srun(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    ranks_from_slurm()
    assert "RANK" not in os.environ
    slurm = {"STEP_NUM_TASKS": 4, "STEP_NUM_NODES": 2, "PROCID": 3, "LOCALID": 1, "NODEID": 1, "JOB_ID": 70001}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        ranks_from_slurm()
        found = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
        assert found == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        assert (os.environ["GROUP_WORLD_SIZE"], os.environ["MASTER_ADDR"]) == ("2", "10.0.0.1")
        assert 20000 <= int(os.environ["MASTER_PORT"]) < 40000


def test_loader_processes_follow_the_cpus_of_the_job(monkeypatch):
    assert loaders(3) == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert loaders(None) == 5
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert loaders(None) == 0


def job(file, **environment):
    command = [sys.executable, "-m", "bench.launch.job", str(file)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def test_a_job_works_off_its_own_runs_whatever_version_submitted_it(tmp_path):
    bench("run", "--suite", "smoke", "--method", "random", "--runs", tmp_path / "planned")
    runs = tmp_path / "runs"
    folders = [RunFolder.create(runs, read_json(p)) for p in (tmp_path / "planned").glob("pretrain-*/spec.json")]
    missing = RunFolder.create(runs, SPEC)
    work = Work(runs, (), runs, runs / ".cache", 0, 60.0)
    jobs = [(missing.id,), (folders[0].id,)]
    facts = {"launcher": "slurm", "seconds": 600, "signal_seconds": 30, "requeues": 3}
    file = tmp_path / "job.json"
    write_json(file, describe(work, jobs, **facts) | {"bench": "0.0.1"})
    done = job(file, SLURM_ARRAY_TASK_ID="1")
    assert done.returncode == 0, done.stderr
    assert folders[0].done()
    assert "submitted by bench 0.0.1, executed by" in (folders[0].path / "out.log").read_text()
    assert job(file, SLURM_ARRAY_TASK_ID="0").returncode == 1
    write_json(file, json.loads(file.read_text()) | {"schema": 2})
    refused = job(file)
    assert refused.returncode == 2
    assert "a job file of schema 2" in refused.stderr


def test_a_signal_before_the_handlers_are_set_does_not_end_the_job():
    from bench.launch.arrays import _UNTIL_IT_LISTENS

    early = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGTERM); print('on')"
    done = subprocess.run(
        f'{_UNTIL_IT_LISTENS} {sys.executable} -c "{early}"', shell=True, capture_output=True, text=True, check=True
    )
    assert done.stdout == "on\n"
