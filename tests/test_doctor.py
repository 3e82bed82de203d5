"""What the doctor finds on this machine, and on machines where something lacks."""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import __version__, doctor
from bench.cli import app
from bench.doctor import GIB, Check, examine


def named(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Sets the size of every disk, all of it free, in bytes."""
    usage = collections.namedtuple("usage", "total used free")

    def set_free(size: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(size, 0, size))

    return set_free


def test_this_machine_can_run(tmp_path: Path) -> None:
    checks = named(examine(tmp_path / "data", tmp_path / "runs"))
    assert all(checks[name].status == "ok" for name in ("python", "bench", "torch", "cpu"))
    assert checks["bench"].found.startswith(__version__)
    assert "fail" not in [check.status for check in checks.values()]
    assert all(bool(check.mend) == (check.status == "warn") for check in checks.values())
    assert {"detectron2", "mmsegmentation", "opencv-contrib", "slurm"} <= set(checks)
    assert not list(tmp_path.iterdir()), "looking made something"


def test_data_that_are_not_there(tmp_path: Path) -> None:
    missing = named(doctor._data(tmp_path / "nowhere", tmp_path / "cache"))
    assert missing["data"].status == "warn"
    assert "BENCH_DATA" in missing["data"].mend
    empty = named(doctor._data(tmp_path, tmp_path / "cache"))
    assert empty["data: scenes"] == Check("data: scenes", "ok", "generated")
    assert empty["data: imagenet"].mend == "run `bench data prepare imagenet`"


def test_data_that_are_half_there(tmp_path: Path) -> None:
    image = tmp_path / "tiny-imagenet-50" / "train" / "n01443537" / "n01443537_0.JPEG"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"")
    check = named(doctor._data(tmp_path, tmp_path / "cache"))["data: tiny-imagenet-50"]
    assert check.status == "warn"
    assert check.found == "train 1 of 10,000, val 0 of 2,500, unlabelled 0 of 10,000"
    assert "bench data prepare tiny-imagenet-50" in check.mend


def test_clips_of_which_any_number_will_do(tmp_path: Path) -> None:
    (tmp_path / "yfcc-clips" / "train" / "some video").mkdir(parents=True)
    check = named(examine(tmp_path, tmp_path / "runs"))["data: yfcc-clips"]
    assert (check.status, check.found) == ("warn", "train 1, heldout 0")


def test_real_data(bench_data: Path, tmp_path: Path) -> None:
    check = named(doctor._data(bench_data, tmp_path))["data: tiny-imagenet-50"]
    assert check == Check(check.name, "ok", "train 10,000, val 2,500, unlabelled 10,000")


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = doctor._folder("runs", tmp_path / "file" / "runs", "--runs")
    assert check.status == "fail"
    assert check.mend == "name another folder by --runs"


@pytest.mark.parametrize(("gib", "status"), [(0.5, "fail"), (5, "warn"), (50, "ok")])
def test_free_space(gib: float, status: str, tmp_path: Path, free) -> None:
    free(gib * GIB)
    check = doctor._folder("runs", tmp_path, "--runs")
    assert check.status == status
    assert f"{gib:.1f} GiB free" in check.found
    assert bool(check.mend) == (status != "ok")


def test_shared_memory(tmp_path: Path, free) -> None:
    free(64 * 2**20)
    (check,) = doctor._shared_memory(tmp_path)
    assert check.status == "warn"
    assert check.found.startswith("64 MiB")
    assert "--shm-size" in check.mend
    assert doctor._shared_memory(tmp_path / "absent") == []


def test_a_cache_elsewhere_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "cache"))
    check = named(examine(tmp_path, tmp_path / "runs"))["cache"]
    assert check.status == "fail"
    assert "BENCH_CACHE" in check.mend


@pytest.mark.parametrize(
    ("script", "status", "found"),
    [("echo slurm 22.05.8", "ok", "slurm 22.05.8"), ("exit 1", "warn", "sbatch does not answer")],
)
def test_slurm(script: str, status: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\n{script}\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    check = doctor._slurm()
    assert check.status == status
    assert check.found.startswith(found)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "login node" in doctor._slurm().mend


def test_a_gpu_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "version"
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", driver)
    assert doctor._no_gpu("13.0", []).status == "ok"
    driver.write_text("NVRM version: 470")
    check = doctor._no_gpu("13.0", ["The NVIDIA driver on your system is too old (found version 11040).\nUpdate it."])
    assert check.status == "warn"
    assert "too old (found version 11040)." in check.found
    assert "CUDA 13.0" in check.mend


def test_a_torch_that_does_not_load_is_one_check(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open\\nmore lines')\n")
    code = """
from pathlib import Path
from bench.doctor import examine
checks = examine(Path("nowhere"), Path("runs"))
print([(c.status, c.found, c.mend) for c in checks if c.name == "torch"], len(checks))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(doctor.__file__).parents[1])])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert "('fail', 'does not import: libcudart.so: cannot open', 'install the pair" in done.stdout


def test_exit_status_says_whether_a_run_can_be_done(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["doctor", "--json", "--data", str(tmp_path), "--runs", str(tmp_path / "runs")])
    assert good.exit_code == 0
    assert {record["is"] for record in json.loads(good.output)} <= {"ok", "warn"}
    (tmp_path / "file").write_text("")
    bad = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path), "--runs", str(tmp_path / "file" / "runs")])
    assert bad.exit_code == 1
