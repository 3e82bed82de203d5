"""A real Slurm for the tests of this folder, started by slurm/dev/dev-slurm.sh and stopped after them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "slurm" / "dev" / "dev-slurm.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch")

DAWDLER = '''"""Rotation, with a pause before each update where DAWDLE names seconds: long, and light."""

import os
import time

from bench.methods.base import SGD, Cosine, Recipe
from bench.methods.rotation import Rotation


class Dawdler(Rotation):
    title, citation, version = "Dawdler", "gidaris2018unsupervised", 1
    needs = {"image"}
    recipe = Recipe(epochs=2, batch=32, optimiser=SGD(lr=0.01, schedule=Cosine(), warmup=0.1))

    def losses(self, batch, step, generator):
        time.sleep(float(os.environ.get("DAWDLE", 0)))
        yield from super().losses(batch, step, generator)
'''


class Cluster:
    """The cluster, and ``bench`` on it."""

    def __init__(self, folder: Path, outside: Path) -> None:
        self.environment = {
            **os.environ,
            "DEV_SLURM": str(folder),
            "DEV_SLURM_CPUS": "2",
            "SLURM_CONF": str(folder / "etc" / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(outside), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
        }

    def dev(self, *words: str) -> str:
        done = subprocess.run(
            [SCRIPT, *words], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, *words: object) -> str:
        """A command of Slurm."""
        return subprocess.run(
            list(map(str, words)), env=self.environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    def popen(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bench.cli", *map(str, words)],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def bench(self, *words: object, **environment: str) -> str:
        job = self.popen(*words, **environment)
        out = job.communicate(timeout=120)[0]
        assert job.returncode == 0, out
        return out

    def reproduce(self, runs: Path, on: object = "dev", *more: object, **environment: str) -> str:
        words = ("reproduce", "imagenet-linear", "--runs", runs, "--on", on, "--checkpoint-every", 0, *more)
        return self.bench(*words, **environment)

    def states(self, runs: Path) -> dict[str, str]:
        return {row["run"]: row["state"] for row in json.loads(self.bench("status", "--runs", runs, "--json"))}

    def wait(self, runs: Path, seconds: float = 100) -> None:
        """Until every run is done."""

        def settled() -> bool:
            states = set(self.states(runs).values())
            assert states <= {"QUEUED", "RUNNING", "DONE"}, self.bench("status", "--runs", runs)
            return states == {"DONE"}

        until(settled, seconds, pause=1)


def until(true: Callable[[], object], seconds: float = 60, pause: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(pause)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes with fake GPUs and accounting; skips where Slurm is not installed."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if any(shutil.which(program, path=path) is None for program in PROGRAMS):
        pytest.skip("Slurm is not installed here: run `make dev-slurm`")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "dawdler.py").write_text(DAWDLER)
    about = outside / "dawdler-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dawdler\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bench.methods]\ndawdler = dawdler:Dawdler\n")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own paths are too long for sockets
    folder.chmod(0o711)  # munge asks for it
    made = Cluster(folder / "c", outside)
    try:
        made.dev("up")
        yield made
    finally:
        made.dev("wipe")
        shutil.rmtree(folder)
