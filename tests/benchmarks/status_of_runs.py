"""``bench status`` of many recorded runs, against reading the same JSON files with nothing but ``json``.

python tests/benchmarks/status_of_runs.py --runs 10000
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from measuring import arguments, cpu_seconds, folder, heading, ratio

from bench import plan as planning
from bench import suite as suites
from bench.launch import state
from bench.runfolder import FINAL, RunFolder

ENDS = ("DONE", "DONE", "DONE", "DONE", "DONE", "DONE", "DONE", "FAILED", "RUNNING", "PENDING")


def record(runs: Path, count: int) -> None:
    """Runs as they lie on disk: of ten, seven are done, one failed, one runs, one waits."""
    suite = suites.load("mini")
    for seed in range(count // 2):
        parent = planning.pretrain(suite, "rotation", lambda role, split: "0" * 16, seed=seed)
        child = planning.evaluate(suite, parent, "imagenet-linear", "standard", lambda role, split: "0" * 16)
        for run in (parent, child):
            finish(RunFolder.create(runs, run.spec), ENDS[seed % len(ENDS)])


def finish(made: RunFolder, end: str) -> None:
    """Bring a run to that state."""
    if end == "PENDING":
        return
    attempt = made.take("inline")
    for update in range(20):
        attempt.write_log({"update": update, "epoch": update / 4, "lr": {"main": 0.1}, "loss": 1.0, "seconds": 1.0})
    if end == "RUNNING":
        return
    attempt.end(end, "" if end == "DONE" else "no luck")
    if end == "DONE":
        for name in FINAL[made.id.partition("-")[0]]:
            (made.path / name).write_text("{}")


def plain(runs: Path) -> list[Any]:
    """What status is held against: each run's spec and attempts, and nothing done with them."""
    found = []
    for entry in os.scandir(runs):
        for name in os.listdir(entry.path):  # noqa: PTH208
            if name == "spec.json" or name.startswith("attempt-"):
                with open(os.path.join(entry.path, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                    found.append(json.load(file))
    return found


def main() -> None:
    """Print the ratio."""
    asked = arguments(__doc__ or "", runs=10000)
    heading(f"bench status of {asked.runs} runs")
    with folder() as runs, unsynced():
        record(runs, asked.runs)
        plain(runs)  # the disk's cache is warm for both
        less = min(cpu_seconds(lambda: plain(runs)) for _ in range(3))
        more = min(cpu_seconds(lambda: state.rows(state.folders(runs))) for _ in range(3))
        ratio("status / reading the same files with json", more, less, "at most 2")


class unsynced:  # noqa: N801
    """Recording does not wait for the disk."""

    def __enter__(self) -> None:
        self.fsync, os.fsync = os.fsync, lambda handle: None

    def __exit__(self, *error: object) -> None:
        os.fsync = self.fsync


if __name__ == "__main__":
    main()
