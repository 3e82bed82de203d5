"""A cluster's profile: submits job arrays through submitit, and returns.

Before an array is submitted, its file is on disk under the unique name that Slurm will know it by; so a submitter
that dies at any moment leaves jobs that can run, and that the next one finds by name. One submitter works at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.identity import Spec
from bench.launch import queue, state
from bench.launch.arrays import Array, arrays, script
from bench.launch.base import Launcher, Work, jobs_folder
from bench.launch.job import describe
from bench.launch.profile import Profile
from bench.runfolder import RunFolder

Say = Callable[[str], None]

_BUSY = (
    *("Unable to contact slurm controller", "Socket timed out", "Connection refused", "Zero Bytes were transmitted"),
    *("temporarily", "standby mode", "try again"),
)
"""What sbatch says when the same call may go through later."""
_PAUSE = 0.05
"""Seconds between arrays: clusters limit how often they are called."""
_WAITS = (2, 5, 10)
"""Seconds before each further try."""


class _Executor(SlurmExecutor):
    """submitit's, which is handed the script whole."""

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return command


class Slurm(Launcher):
    """Returns when everything is submitted; the work needs no shell. Watch it with ``bench status``."""

    detached = True

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def launch(self, work: Work, say: Say) -> list[str]:
        """Submit what is neither done nor in the queue.

        Raises:
            BenchError: this machine has no Slurm, or sbatch refuses, in its own words; what was submitted until then
                stays so, and the same call goes on.
        """
        folder = jobs_folder(work.runs)
        with _alone(folder):
            recover(work.runs)
            todo, waiting = self._todo(work, say)
            made = arrays(todo, self.profile, uuid.uuid4().hex, waiting)
            submitted: dict[str, str] = {}
            try:
                for array in made:
                    submitted[array.name] = self._submit(array, work, folder, submitted)
                    time.sleep(_PAUSE)
            finally:  # sbatch may refuse the next one
                _tell([(submitted[array.name], array) for array in made if array.name in submitted], say)
        return []

    def _todo(self, work: Work, say: Say) -> tuple[list[tuple[str, Spec]], dict[str, str]]:
        """The runs to submit, with their specs, and the Slurm jobs of parents that are under way."""
        found = {run_id: RunFolder(work.runs / run_id) for run_id in work.ids}
        specs = {run_id: folder.spec() for run_id, folder in found.items()}
        parents = {spec["parent"] for spec in specs.values() if "parent" in spec} - found.keys()
        everyone = state.reconcile([*found.values(), *(RunFolder(work.runs / parent) for parent in parents)])
        under_way = {run_id for run_id, now in everyone.items() if now.under_way}
        waiting = {run_id: job for run_id in under_way if (job := everyone[run_id].job)}
        todo: dict[str, Spec] = {}
        left = 0
        for run_id, spec in specs.items():
            if run_id in under_way or everyone[run_id].state == "DONE":
                continue
            parent = spec.get("parent")
            if parent is None or parent in todo or parent in waiting or everyone[parent].state == "DONE":
                todo[run_id] = spec
            else:
                left += 1
        queued = len(under_way & found.keys())
        if queued:
            say(f"{queued} runs are in the queue or running already")
        if left:
            say(f"{left} runs wait for a pretraining that is executed elsewhere: submit them again when it is done")
        return list(todo.items()), waiting

    def _submit(self, array: Array, work: Work, folder: Path, submitted: dict[str, str]) -> str:
        """Submit one array; its Slurm id."""
        file = folder / f"{array.name}.json"
        facts = {
            "launcher": "slurm",
            "profile": self.profile.name,
            "seconds": array.resources.seconds,
            "signal_seconds": self.profile.signal_seconds,
            "requeues": self.profile.requeues,
        }
        write_json(file, describe(work, list(array.jobs), **facts))
        text = script(array, self.profile, folder, after=lambda job: _resolve(job, submitted))
        number = submit(array.name, text, folder)
        _record(file, number)
        return number


def _tell(submitted: list[tuple[str, Array]], say: Say) -> None:
    if not submitted:
        return
    runs = sum(len(ids) for _, array in submitted for ids in array.jobs)
    ids = [f"{number} ({len(array.jobs)} jobs)" for number, array in submitted]
    say(f"submitted {runs} runs: " + ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if ids[8:] else ""))
    say("watch them with `bench status --watch`; they need no shell")


def submit(name: str, text: str, folder: Path) -> str:
    """Hand a script to sbatch; the job's id. A controller that is busy or away for a moment is asked again.

    Raises:
        BenchError: sbatch refuses, in its own words.
    """
    if "%" in str(folder):
        raise BenchError("Slurm takes a % in the path of its output for a pattern", where=folder, mend="rename it")
    try:
        executor = _Executor(folder)
    except RuntimeError as error:
        raise BenchError("there is no Slurm here", mend="submit on a login node, or use `--on local`") from error
    for wait in (*_WAITS, None):
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # what it says comes with the error
                return executor._submit_command(text).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            said = _last_line(str(error))
            if wait is None or not any(word in str(error) for word in _BUSY):
                raise BenchError(
                    f"sbatch refuses: {said}", mend="see slurm/README.md for the commonest causes"
                ) from error
            warnings.warn(f"sbatch: {said}; asking again in {wait} s", stacklevel=2)
        time.sleep(wait)
        known = queue.ids_of([name]) or {}  # it may have been taken all the same
        if name in known:
            return known[name]
    raise AssertionError("unreachable")


def recover(runs: Path) -> None:
    """Find by name the arrays of a submitter that died, and record them; forget what was never submitted."""
    lost = {}
    for file in jobs_folder(runs).glob("bench-*.json"):
        if "job" not in read_json(file):
            lost[file.stem] = file
    known = queue.ids_of(lost)
    if known is None:
        return
    for name, file in lost.items():
        if name in known:
            _record(file, known[name])
        else:
            file.unlink(missing_ok=True)


def _record(file: Path, number: str) -> None:
    """Write down an array's id: in its runs first, in its file last."""
    told = read_json(file)
    for index, ids in enumerate(told["jobs"]):
        for run_id in ids:
            folder = RunFolder(Path(told["runs"]) / run_id)
            job = f"{number}_{index}"
            started = any(attempt.get("job") == job for attempt in folder.attempts())
            if not (started or folder.done()):
                folder.queue("slurm", job, file.stem)
    write_json(file, {**told, "job": number})


def _resolve(job: str, submitted: dict[str, str]) -> str:
    """``<array's name>_<index>`` -> ``<id>_<index>``; a Slurm id stays."""
    name, _, index = job.rpartition("_")
    return f"{submitted[name]}_{index}" if name in submitted else job


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One submitter at a time for a folder of runs; the lock goes with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "submit.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()]
    return (told or lines or ["nothing"])[-1].removeprefix("sbatch: error: ")
