"""The state of every run: from what is on disk, and where a batch system has it, from what that says. No torch."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import canonical, read_json
from bench.launch import queue
from bench.launch.base import jobs_folder
from bench.runfolder import FINAL, RunFolder, Standing

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("kind", "suite", "method", "options", "backbone", "protocol", "variant", "seed", "state", "reason", "id"),
    *("protocol_digest", "method_version", "backbone_version", "pretraining_digest"),
]

STATES = (
    *("PENDING", "QUEUED", "RUNNING", "DONE", "FAILED", "TIMEOUT", "OOM"),
    *("PREEMPTED", "CANCELLED", "LOST", "BLOCKED"),
)
"""All states of a run."""
_UNSURE = {"QUEUED", "RUNNING", "LOST", "PREEMPTED", "TIMEOUT", "CANCELLED"}
"""States of the disk that a batch system may know to have changed."""
_IDLE = {"PENDING", "QUEUED", "CANCELLED", "LOST"}
"""States of a run that may still have to begin."""
_IN_VAIN = {"FAILED", "TIMEOUT", "OOM", "CANCELLED", "LOST"}
"""States of a pretraining that leave its evaluations BLOCKED."""


def folders(runs: Path, patterns: tuple[str, ...] = ()) -> list[RunFolder]:
    """The runs whose id equals, starts with, or matches (``*``) one of the patterns; all without patterns.

    A folder that is not a run's, or a run not done whose spec is damaged, is left out with a warning.

    Raises:
        BenchError: a pattern that fits no run.
    """
    names = sorted(entry.name for entry in os.scandir(runs) if entry.is_dir()) if runs.is_dir() else []
    kept: set[str] = set()
    for pattern in patterns:
        fit = {name for name in names if name.startswith(pattern) or fnmatch.fnmatchcase(name, pattern)}
        fit = {name for name in fit if _is_run(RunFolder(runs / name))}
        if not fit:
            raise BenchError(f"no run is called {pattern!r}", where=runs, mend="`bench status` lists them")
        kept |= fit
    if patterns:
        return [RunFolder(runs / name) for name in sorted(kept)]
    return [folder for name in names if _is_run(folder := RunFolder(runs / name))]


def _is_run(folder: RunFolder) -> bool:
    if not (folder.path / "spec.json").is_file():
        return False
    if folder.id.partition("-")[0] in FINAL and folder.done():
        return True
    try:
        folder.spec()
    except BenchError as error:
        warnings.warn(f"not a run, left out: {error}", stacklevel=3)
        return False
    return True


def of_table(name: str, runs: Path) -> list[RunFolder]:
    """The runs on disk that a table's columns read, and their pretrainings."""
    from bench.report.spec import load

    protocols = {column.protocol for column in load(name).columns}
    found = {folder.id: folder for folder in folders(runs)}
    kept: set[str] = set()
    for run_id in found:
        spec = read_json(runs / run_id / "spec.json")
        if spec.get("protocol", {}).get("name") in protocols:
            kept |= {run_id, spec["parent"]}
    return [found[run_id] for run_id in sorted(kept & found.keys())]


def reconcile(found: Iterable[RunFolder]) -> dict[str, Standing]:
    """Where each run stands, by its id: the disk first, then what Slurm knows of the jobs that it names.

    What a job can no longer write down itself is written down here. Without Slurm the disk's word stands. A run whose
    pretraining failed is BLOCKED, though its job may wait until Slurm has seen that, too.
    """
    asked = {folder.id: folder for folder in found}
    now = {run_id: folder.standing() for run_id, folder in asked.items()}
    parents = {run_id: parent for run_id, folder in asked.items() if (parent := _awaited(folder, now[run_id]))}
    by_id = dict(asked)
    for run_id, parent in parents.items():
        if parent not in by_id:
            by_id[parent] = RunFolder(asked[run_id].path.parent / parent)
            now[parent] = by_id[parent].standing()
    jobs = {standing.job: standing.name for standing in now.values() if standing.job and standing.state in _UNSURE}
    if jobs:
        answer = queue.ask(jobs)
        for run_id, standing in now.items():
            if standing.job and standing.state in _UNSURE:
                now[run_id] = _amended(by_id[run_id], standing, answer)
    return {run_id: _blocked(now[run_id], now.get(parents.get(run_id, ""))) for run_id in asked}


def _awaited(folder: RunFolder, standing: Standing) -> str | None:
    """The pretraining without which a run that never began cannot begin."""
    if standing.begun or standing.state not in _IDLE:
        return None
    parent: str | None = read_json(folder.path / "spec.json").get("parent")
    return parent


def _blocked(standing: Standing, parent: Standing | None) -> Standing:
    """The same, or BLOCKED: a run that never began, whose pretraining did not come to its end."""
    if parent is None or standing.begun or standing.state not in _IDLE or parent.state not in _IN_VAIN:
        return standing
    return replace(standing, state="BLOCKED", reason=f"its pretraining is {parent.state}: {parent.reason}")


def _amended(folder: RunFolder, standing: Standing, answer: queue.Answer) -> Standing:
    job = answer.jobs.get(standing.job or "")
    if job is None:
        if answer.heard and standing.state == "QUEUED":
            said = _last_words(folder, standing)
            heard = f", which last said: {said}" if said else ""
            return _settled(folder, standing, "LOST", f"Slurm does not know job {standing.job}{heard}; retry it")
        return standing
    if job.waits:
        why = job.reason if job.reason not in {"", "None"} else "in Slurm's queue"
        again = f"again, after {standing.state}: " if standing.state != "QUEUED" else ""
        return replace(standing, state="QUEUED", reason=f"{again}{why}")
    if job.runs:
        if standing.state == "RUNNING":
            return standing
        return replace(standing, state="QUEUED", reason="its job has started")
    taken_away = standing.state in {"PREEMPTED", "TIMEOUT"} and job.outcome == "CANCELLED"
    if standing.state in {"QUEUED", "RUNNING", "LOST"} or taken_away:
        reason = f"job {standing.job} ended: {job.state}"
        said = _last_words(folder, standing)
        return _settled(folder, standing, job.outcome, f"{reason}: {said}" if said else reason)
    return standing


def _settled(folder: RunFolder, before: Standing, state: str, reason: str) -> Standing:
    """Write it down, unless the run went on since we looked."""
    now = folder.standing()
    if (now.state, now.job) != (before.state, before.job):
        return now
    with contextlib.suppress(BenchError):  # who only watches may not be allowed to write
        folder.settle(state, reason)
    return replace(before, state=state, reason=reason)


def job_output(folder: RunFolder, job: str) -> list[Path]:
    """What a Slurm job of the run printed: standard output, then errors, of its first process."""
    found = jobs_folder(folder.path.parent)
    return [file for kind in ("out", "err") if (file := found / f"{job}_0_log.{kind}").is_file()]


def _last_words(folder: RunFolder, standing: Standing) -> str:
    for file in reversed(job_output(folder, standing.job or "")):
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines()[-20:] if line.strip()]
        told = [line for line in lines if not line.startswith(("srun:", "slurmstepd:"))] or lines
        if told:
            return told[-1][:300]
    return ""


def rows(found: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """What ``bench status`` prints: one record a run, with progress where it trains."""
    now = reconcile(found)
    made = []
    for folder in found:
        standing = now[folder.id]
        at = progress(folder) if standing.state == "RUNNING" else None
        made.append(
            {
                "run": folder.id,
                "state": standing.state,
                "progress": f"{at[0]:.0%}, {_duration(at[1])} to go" if at else "",
                "reason": standing.reason,
            }
        )
    return made


def summary(shown: Sequence[Mapping[str, Any]]) -> str:
    """How many runs are in which state, in one line."""
    of = Counter(row["state"] for row in shown)
    return f"{len(shown):,} runs: " + ", ".join(f"{of[name]:,} {name}" for name in STATES if of[name])


def frame(runs: Path) -> pd.DataFrame:
    """One row a run that is not done; see ``COLUMNS``."""
    import pandas as pd

    undone = [folder for folder in folders(runs) if not folder.done()]
    return pd.DataFrame([describe(folder) for folder in undone], columns=COLUMNS)


def describe(folder: RunFolder) -> dict[str, Any]:
    """One run as a flat record, from what is on disk."""
    spec = read_json(folder.path / "spec.json")
    protocol = spec.get("protocol") or {}
    standing = folder.standing()
    if parent := _awaited(folder, standing):
        standing = _blocked(standing, RunFolder(folder.path.parent / parent).standing())
    return {
        **{key: spec[key] for key in ("kind", "suite", "method", "backbone", "seed")},
        "options": canonical(spec["options"]),
        "protocol": protocol.get("name"),
        "variant": protocol.get("variant"),
        "state": standing.state,
        "reason": standing.reason,
        "id": folder.id,
        "protocol_digest": protocol.get("digest"),
        "method_version": spec.get("versions", {}).get("method"),
        "backbone_version": spec.get("versions", {}).get("backbone"),
        "pretraining_digest": spec.get("pretraining_digest"),
    }


def progress(folder: RunFolder) -> tuple[float, float] | None:
    """(fraction done, seconds to go) of a run that has begun to train, from its log."""
    log = folder.log()
    spec = read_json(folder.path / "spec.json")
    budget = spec["protocol"]["definition"] if spec["kind"] == "evaluate" else spec["pretraining"]["recipe"] or {}
    unit = "update" if budget.get("iterations") else "epoch"
    whole = budget.get("iterations") or budget.get("epochs")
    if not log or not whole:
        return None
    done = min(1.0, log[-1][unit] / whole)
    return done, log[-1]["seconds"] * (1 - done) / done if done else 0.0


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"
