"""Runs -> the job arrays that a Slurm cluster gets, and the script of each. Pure: nothing is asked or written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.identity import Spec, digest
from bench.launch.profile import Profile, Resources

_UNTIL_IT_LISTENS = """bash -c 'trap "" USR2 TERM; exec "$@"' bash"""
"""A signal that comes before Python has set its handlers would end the job; ignored signals stay so over exec."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Array:
    """Jobs of one resource shape that wait for the same thing; submitted by one ``sbatch``."""

    name: str
    """Unique; what Slurm calls it."""
    resources: Resources
    jobs: tuple[tuple[str, ...], ...]
    """The runs of each job, in order."""
    after: str | None = None
    """The job that must succeed first: ``<name of an earlier array>_<index>``, or a Slurm job's id."""


def arrays(runs: Sequence[tuple[str, Spec]], profile: Profile, stamp: str, waiting: dict[str, str]) -> list[Array]:
    """The arrays of runs that are to be submitted, parents before children.

    Runs of one shape share an array, but children of different parents: these wait for their own parent alone.

    Args:
        runs: (id, spec), each once.
        stamp: makes the names unique.
        waiting: the Slurm job of each parent that was submitted before and is not done.
    """
    made: list[Array] = []
    home = dict(waiting)
    parents = [(run_id, spec) for run_id, spec in runs if "parent" not in spec]
    children = [(run_id, spec) for run_id, spec in runs if "parent" in spec]
    for _, group in _grouped(parents, lambda run: _key(profile.resources(run[1]))):
        for array in _cut(group, profile, stamp, None):
            made.append(array)
            home |= {run_id: f"{array.name}_{index}" for index, ids in enumerate(array.jobs) for run_id in ids}
    for (after, _), group in _grouped(
        children, lambda run: (home.get(run[1]["parent"]), _key(profile.resources(run[1])))
    ):
        made += _cut(group, profile, stamp, after)
    return made


def _cut(runs: list[tuple[str, Spec]], profile: Profile, stamp: str, after: str | None) -> list[Array]:
    """Runs of one shape -> jobs of ``pack`` runs -> arrays of at most ``array_size`` jobs."""
    resources = profile.resources(runs[0][1])
    jobs = _chunks([run_id for run_id, _ in runs], resources.pack)
    parts = [tuple(map(tuple, part)) for part in _chunks(jobs, profile.array_size)]
    return [Array(f"bench-{digest([stamp, *part], 8)}", resources, part, after) for part in parts]


def script(
    array: Array,
    profile: Profile,
    folder: Path,
    *,
    after: Callable[[str], str] = lambda job: job,
    python: str = sys.executable,
    command: str | None = None,
) -> str:
    """The array's sbatch script, as submitit renders it.

    Args:
        folder: where the array's file ``<name>.json`` is, and what its jobs print will be.
        after: gives the Slurm job's id of what ``array.after`` names.
        command: what Python is to do; by default, work off the array's file.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    wanted = array.resources
    command = command or f"-u -m bench.launch.job {shlex.quote(str(folder / f'{array.name}.json'))}"
    more: dict[str, Any] = {"requeue": True, **{name: v for name, v in wanted.slurm.items() if v is not False}}
    if array.after:
        more |= {"dependency": f"afterok:{after(array.after)}", "kill-on-invalid-dep": "yes"}
    return _make_sbatch_string(
        command=f"{_UNTIL_IT_LISTENS} {profile.python or shlex.quote(python)} {command}",
        folder=folder,
        job_name=array.name,
        map_count=len(array.jobs),
        array_parallelism=profile.array_limit,
        partition=wanted.partition,
        account=wanted.account,
        qos=wanted.qos,
        constraint=wanted.constraint,
        nodes=wanted.nodes,
        ntasks_per_node=wanted.tasks,
        gpus_per_node=wanted.gpus or None,
        cpus_per_task=wanted.cpus,
        mem=wanted.memory,
        time=wanted.time,  # type: ignore[arg-type]  # sbatch's own notation
        signal_delay_s=profile.signal_seconds,
        setup=_setup(profile) or None,
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={wanted.cpus}"],
        wckey=None,  # type: ignore[arg-type]  # some clusters refuse one
        additional_parameters=more,
    )


def _setup(profile: Profile) -> list[str]:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in profile.environment.items()]
    return [*exports, *(f"{line} || exit 1" for line in profile.setup)]


def _key(resources: Resources) -> str:
    return resources.model_dump_json()


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    """Items of equal keys together, in the order of first appearance."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def _chunks(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
