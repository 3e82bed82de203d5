"""The body of a job on another machine: a file that lists run ids and paths in, an exit status out.

It is started as ``python -m bench.launch.job FILE``. Nothing is unpickled; the file is there before the job is
submitted, so nothing is lost when the submitting process dies. Signals are caught before torch is imported.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import __version__
from bench.errors import BenchError
from bench.files import read_json
from bench.launch.base import Work
from bench.runfolder import RunFolder

SCHEMA = 1
QUEUE_AGAIN_BEFORE = 20
"""Seconds before the end of a job's time at which it queues again even if it could not save."""


def describe(work: Work, jobs: list[tuple[str, ...]], **more: Any) -> dict[str, Any]:
    """The content of a job's file: ``jobs[i]`` are the runs of the array's job ``i``, in order."""
    facts = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(work).items()}
    del facts["ids"]
    return {"schema": SCHEMA, "bench": __version__, **facts, "jobs": [list(ids) for ids in jobs], **more}


def main(file: Path) -> int:
    """Work off the runs of this job; 0 if at least one of them is done, or the job was put back into the queue."""
    job = _Job(file)
    job.listen()
    ranks_from_slurm()
    from bench.launch.work import work_off
    from bench.run import Executor
    from bench.training.loop import Interrupted

    work = job.work()
    job.note_version(work)
    by = Executor(job.launcher, work.data, work.cache, job.described.get("requeues"), job.stopped)
    try:
        work_off(work, by, say=lambda line: print(line, flush=True), stop=lambda: job.asked is not None)
    except Interrupted:
        return 0 if job.launcher == "local" else job.queue_again()
    return int(not any(RunFolder(work.runs / run_id).done() for run_id in work.ids))


class _Job:
    def __init__(self, file: Path) -> None:
        self.described = read_json(file)
        if self.described.get("schema") != SCHEMA:
            raise BenchError(f"a job file of schema {self.described.get('schema')}", where=file, mend="submit again")
        self.launcher = self.described["launcher"]
        self.started = time.monotonic()
        self.asked: int | None = None
        """The signal that asked this job to stop."""

    def work(self) -> Work:
        """What this job of the array is to do."""
        told = self.described
        ids = tuple(told["jobs"][int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))])
        paths = Path(told["runs"]), ids, Path(told["data"]), Path(told["cache"])
        return Work(*paths, told["workers"], told["checkpoint_seconds"], told["micro_batch"])

    def listen(self) -> None:
        """SIGUSR2 (time or preemption, by Slurm's leave), SIGTERM and our own clock ask to save and stop."""
        signal.signal(signal.SIGTERM, self._ask)
        if self.launcher == "slurm":
            signal.signal(signal.SIGUSR2, self._ask)
            told = self.described
            _later(told["seconds"] - told["signal_seconds"], lambda: self._ask(signal.SIGUSR2, None))

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked is None and self.launcher == "slurm" and self._timed_out():
            patience = max(1, self.described["signal_seconds"] - QUEUE_AGAIN_BEFORE)
            _later(patience, self.queue_again)
        self.asked = self.asked or number

    def _timed_out(self) -> bool:
        """Slurm signals up to a minute early; anything earlier is preemption."""
        told = self.described
        return time.monotonic() - self.started > told["seconds"] - told["signal_seconds"] - 90

    def stopped(self) -> tuple[str, str]:
        """The state in which the signal leaves a run."""
        if self.launcher == "local":
            return "CANCELLED", "its process was asked to stop; run it again to go on"
        if self._timed_out():
            return "TIMEOUT", "the job's time was up; its state is saved"
        return "PREEMPTED", "the job had to make room; its state is saved"

    def queue_again(self) -> int:
        """Put this job back into Slurm's queue, unless somebody cancelled it; an exit status."""
        if int(os.environ.get("SLURM_PROCID", 0)):
            return 0
        number = os.environ["SLURM_JOB_ID"]
        for wait in (1, 2, 5, 10):
            state = _output("squeue", "--noheader", "--jobs", number, "--format=%T")
            if state is not None and state not in {"RUNNING", "SUSPENDED"}:
                return 1
            if _output("scontrol", "requeue", number) is not None:
                return 0
            time.sleep(wait)
        return 1

    def note_version(self, work: Work) -> None:
        """Say where the code is another than at submission; the spec's own versions are checked by the run."""
        if self.described["bench"] != __version__ and not int(os.environ.get("SLURM_PROCID", 0)):
            for run_id in work.ids:
                line = f"submitted by bench {self.described['bench']}, executed by {__version__}"
                RunFolder(work.runs / run_id).note(line)


def ranks_from_slurm() -> None:
    """Several processes under srun, in the words of torchrun; one process is left alone."""
    here = os.environ
    world = int(here.get("SLURM_STEP_NUM_TASKS", 1))
    if world == 1:
        return
    nodes = int(here["SLURM_STEP_NUM_NODES"])
    here.update(
        TORCHELASTIC_RUN_ID=here["SLURM_JOB_ID"],
        WORLD_SIZE=str(world),
        RANK=here["SLURM_PROCID"],
        LOCAL_RANK=here["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=str(world // nodes),
        GROUP_RANK=here["SLURM_NODEID"],
        GROUP_WORLD_SIZE=str(nodes),
        MASTER_ADDR=here.get("MASTER_ADDR") or here["SLURM_LAUNCH_NODE_IPADDR"],
        MASTER_PORT=here.get("MASTER_PORT") or str(20000 + int(here["SLURM_JOB_ID"]) % 20000),
    )


def _later(seconds: float, act: Callable[[], Any]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def _output(*command: str) -> str | None:
    """What a command of Slurm prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        status = main(Path(sys.argv[1]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        status = 2
    raise SystemExit(status)
