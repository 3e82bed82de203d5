"""``bench profile check``: a short job of each kind of run, which says what it saw."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.errors import BenchError
from bench.launch import profile as profiles
from bench.launch import queue
from bench.launch.base import jobs_folder
from bench.launch.profile import Profile, Resources

PATIENCE = 600
"""Seconds to wait for a job that was submitted; it may wait longer in the queue."""


def check(name: str, runs: Path, data: Path) -> Iterator[str]:
    """Lines of what one job of every resource shape saw.

    Raises:
        BenchError: sbatch refuses, or a job failed.
    """
    profile = profiles.load(name)
    if profile.launcher != "slurm":
        yield from see(runs, data)
        return
    shapes = {kind: shape.model_copy(update={"time": "00:01:00"}) for kind, shape in profile.shapes().items()}
    for shape in {shape.model_dump_json(): shape for shape in shapes.values()}.values():
        kinds = ", ".join(kind for kind, other in shapes.items() if other == shape)
        yield f"{kinds}:"
        yield from (f"  {line}" for line in _ask_one(profile, shape, runs, data))


def _ask_one(profile: Profile, shape: Resources, runs: Path, data: Path) -> Iterator[str]:
    from bench.launch.arrays import Array, script
    from bench.launch.slurm import submit

    folder = jobs_folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    array = Array(f"bench-check-{uuid.uuid4().hex[:8]}", shape, (("check",),))
    command = f"-u -m bench.launch.check {shlex.quote(str(runs))} {shlex.quote(str(data))}"
    short = profile.model_copy(update={"signal_seconds": 10})
    number = submit(array.name, script(array, short, folder, command=command), folder)
    yield f"job {number} is submitted"
    output, errors = (folder / f"{number}_0_0_log.{kind}" for kind in ("out", "err"))
    end, why = time.monotonic() + PATIENCE, ""
    while time.monotonic() < end:
        job = queue.ask({f"{number}_0": array.name}).jobs.get(f"{number}_0")
        if job is not None and job.waits and job.reason not in {"", "None", why}:
            why = job.reason
            yield f"it waits: {why}"
        elif job is not None and not job.waits and not job.runs:
            if job.state != "COMPLETED":
                said = errors.read_text(errors="replace").strip() if errors.is_file() else ""
                raise BenchError(f"the job ended {job.state}: {said[-500:] or 'it printed nothing'}", where=errors)
            if output.is_file():
                yield from output.read_text().splitlines()
                return
        time.sleep(1)
    raise BenchError(
        f"job {number} has not ended in {PATIENCE} s" + (f": {why}" if why else ""),
        mend=f"it goes on: see `squeue --jobs {number}`, or stop it with `scancel {number}`",
    )


def see(runs: Path, data: Path) -> list[str]:
    """What this process sees: its machine, devices, versions, folders, processes."""
    from bench import doctor

    return [f"{c.name}: {c.status}, {c.found}" + (f" ({c.mend})" if c.mend else "") for c in doctor.examine(data, runs)]


def main() -> None:
    """The body of the job; of several processes, the first speaks."""
    if int(os.environ.get("SLURM_PROCID", 0)):
        return
    processes = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    nodes = os.environ.get("SLURM_STEP_NUM_NODES", "1")
    print(f"host: {socket.gethostname()}, {processes} processes on {nodes} nodes")
    print(f"GPUs that Slurm gave: {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}")
    for line in see(*map(Path, sys.argv[1:])):
        print(line)


if __name__ == "__main__":
    main()
