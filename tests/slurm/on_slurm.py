"""Slurm for the tests of this folder: the cluster, ``bench`` on it, and what a table came to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.files import read_json
from bench.results import sha256

DAWDLE = "0.15"
"""Seconds before each update of the dawdler; it makes 60."""
PATIENCE = 300
"""Seconds until a test gives up: many times what it takes on an idle machine."""
SCRIPT = Path(__file__).parents[2] / "slurm" / "dev" / "dev-slurm.sh"

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
        out = job.communicate(timeout=2 * PATIENCE)[0]
        assert job.returncode == 0, out
        return out

    def reproduce(self, runs: Path, on: object = "dev", *more: object, **environment: str) -> str:
        words = ("reproduce", "imagenet-linear", "--runs", runs, "--on", on, "--checkpoint-every", 0, *more)
        return self.bench(*words, **environment)

    def states(self, runs: Path) -> dict[str, str]:
        return {row["run"]: row["state"] for row in json.loads(self.bench("status", "--runs", runs, "--json"))}

    def wait(self, runs: Path) -> None:
        """Until every run is done."""

        def settled() -> bool:
            states = set(self.states(runs).values())
            assert states <= {"QUEUED", "RUNNING", "DONE"}, self.bench("status", "--runs", runs)
            return states == {"DONE"}

        until(settled, pause=1)


def until(true: Callable[[], object], seconds: float = PATIENCE, pause: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(pause)


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
