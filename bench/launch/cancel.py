"""Stops runs wherever they are: those that train save first, those that wait leave the queue."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench.files import read_json
from bench.launch import state
from bench.launch.base import jobs_folder


def cancel(runs: Path, patterns: tuple[str, ...]) -> Iterator[str]:
    """Cancel the runs that fit; a line for each.

    A job in Slurm's queue is cancelled where all of its runs are; else it passes over those that were cancelled.
    """
    found = state.folders(runs, patterns)
    now = state.reconcile(found)
    waiting: dict[str, str | None] = {}
    for folder in found:
        standing = now[folder.id]
        if not standing.under_way:
            yield f"{folder.id}: {standing.state}, nothing to cancel"
            continue
        folder.cancel()
        if standing.state == "QUEUED" and standing.job:
            waiting[standing.job] = standing.name
            folder.settle("CANCELLED", "cancelled while it waited for its turn")
        yield f"{folder.id}: asked to stop"
    mine = {folder.id for folder in found}
    leave = [job for job, name in waiting.items() if mine.issuperset(_runs_of(runs, job, name))]
    for start in range(0, len(leave), 500):
        _scancel(leave[start : start + 500])


def _scancel(jobs: list[str]) -> None:
    command = ["scancel", "--state=PENDING", *jobs]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        warnings.warn(f"they stay in the queue, and their jobs will do nothing: {said}", stacklevel=2)


def _runs_of(runs: Path, job: str, name: str | None) -> list[str]:
    file = jobs_folder(runs) / f"{name}.json"
    return list(read_json(file)["jobs"][int(job.partition("_")[2])]) if file.is_file() else []
