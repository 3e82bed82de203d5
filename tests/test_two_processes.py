"""Two processes under torchrun execute runs from the command line, and leave what one leaves."""

import json
import os
import subprocess
import sys

import pytest
from smoke import bench


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    runs = tmp_path_factory.mktemp("two")
    cell = ["--suite", "smoke", "--method", "random", "--protocol", "imagenet-linear", "--runs", str(runs)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "bench.cli", "run", *cell, "--workers", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


def _result(runs):
    return json.loads(next(runs.glob("evaluate-*/result.json")).read_text())


def test_one_attempt_and_all_that_one_process_leaves(two, tmp_path):
    for folder in (*two.glob("pretrain-*"), *two.glob("evaluate-*")):
        assert [p.name for p in folder.glob("attempt-*.json")] == ["attempt-1.json"]
        assert json.loads((folder / "attempt-1.json").read_text())["state"] == "DONE"
        assert not list(folder.glob("checkpoint.pt"))
    assert _result(two)["hardware"]["world_size"] == 2
    cell = ["--suite", "smoke", "--method", "random", "--protocol", "imagenet-linear", "--runs", tmp_path]
    bench("run", *cell, "--workers", "0", OMP_NUM_THREADS="1")
    one = _result(tmp_path)
    assert one["columns"] == _result(two)["columns"]
    assert one["weights_sha256"] == _result(two)["weights_sha256"]


def test_inside_a_job_one_process_is_one_process(tmp_path):
    job = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0"}
    bench("run", "--suite", "smoke", "--method", "random", "--runs", tmp_path, **job)
    assert list(tmp_path.glob("pretrain-*/card.json"))
