"""What Slurm says about jobs: a hint that lags. squeue is asked first, sacct about what it does not know."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

AT_ONCE = 200
"""Arrays that one call asks about."""

WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"}
_ENDED = {
    "TIMEOUT": "TIMEOUT",
    "DEADLINE": "TIMEOUT",
    "OUT_OF_MEMORY": "OOM",
    "CANCELLED": "CANCELLED",
    "REVOKED": "CANCELLED",
    "PREEMPTED": "PREEMPTED",
    "FAILED": "FAILED",
}


@dataclass(frozen=True)
class Job:
    """One job, or one of an array."""

    state: str
    """Slurm's word, without a suffix such as ``by 0``."""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is to start, for the first time or again."""
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        """Whether it has started and not ended."""
        return self.state in RUNNING

    @property
    def outcome(self) -> str:
        """A run's state where the job ended before the run: LOST where the job says nothing of use."""
        return _ENDED.get(self.state, "LOST")


@dataclass(frozen=True)
class Answer:
    """What is known of the jobs that were asked about."""

    jobs: dict[str, Job]
    """By id, ``<array>_<index>``."""
    heard: bool
    """Whether Slurm answered: a job that is not listed is then forgotten, or never was."""


def ask(jobs: dict[str, str | None]) -> Answer:
    """About jobs by id; the value is the name that the job must have, for ids are given out again."""
    found: dict[str, Job] = {}
    heard = True
    arrays = sorted({job.partition("_")[0] for job in jobs})
    for start in range(0, len(arrays), AT_ONCE):
        ids = arrays[start : start + AT_ONCE]
        rows = _squeue("--jobs", ",".join(ids))
        heard = heard and rows is not None
        found |= _matching(rows or [], jobs)
    missing = sorted({job.partition("_")[0] for job in jobs if job not in found})
    for start in range(0, len(missing), AT_ONCE):
        ids = missing[start : start + AT_ONCE]
        found |= {
            job: known for job, known in _matching(_sacct("--jobs", ",".join(ids)), jobs).items() if job not in found
        }
    return Answer(found, heard)


def ids_of(names: Iterable[str]) -> dict[str, str] | None:
    """The array ids of jobs by their names, those that Slurm knows; None where it does not answer."""
    wanted = ",".join(names)
    if not wanted:
        return {}
    rows = _squeue("--name", wanted)
    if rows is None:
        return None
    rows += _sacct("--name", wanted, "--starttime", "now-30days")
    return {row[3]: row[0].partition("_")[0] for row in rows}


def _matching(rows: list[list[str]], jobs: dict[str, str | None]) -> dict[str, Job]:
    return {
        job: Job(state.partition(" ")[0], reason)
        for job, state, reason, name in rows
        if job in jobs and jobs[job] in (None, name)
    }


def _squeue(*which: str) -> list[list[str]] | None:
    """Rows of id, state, reason, name; None where the controller does not answer."""
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%j", *which],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode:
        return [] if "Invalid job id" in done.stderr else None
    return [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 3]


def _sacct(*which: str) -> list[list[str]]:
    """The same from accounting, with no reasons; nothing where there is none."""
    try:
        done = subprocess.run(
            ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,JobName", *which],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    return [[job, state, "", name] for job, state, name in rows]
