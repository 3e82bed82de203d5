"""A profile: where runs execute. Read strictly from ``slurm/profiles/*.toml``, or from a file of the user's.

A profile says what each *kind* of run is given (a pretraining, an evaluation, one protocol's evaluations), and
nothing about methods. Imports no torch.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from bench.errors import BenchError, did_you_mean
from bench.identity import Spec
from bench.paths import declared
from bench.suite import Strict, read_toml, validate

OWN = {
    *("array", "chdir", "dependency", "error", "export", "job-name", "kill-on-invalid-dep", "open-mode", "output"),
    *("requeue", "no-requeue", "signal", "time", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task"),
}
"""Options of sbatch that ``bench`` sets itself, some of them by keys of a profile."""

Time = Annotated[str, StringConstraints(pattern=r"^(\d+-)?\d{1,3}:\d{2}:\d{2}$")]
Memory = Annotated[str, StringConstraints(pattern=r"^\d+[MGT]$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n]+$")]


class Resources(Strict, strict=True):
    """What one job gets. What is absent is the profile's ``[default]``; what is absent there, the cluster's."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    """A node. Each GPU is one process; without GPUs a node has ``processes``."""
    processes: int = Field(1, ge=1)
    """A node, where there is no GPU."""
    cpus: int = Field(1, ge=1)
    """A process."""
    memory: Memory | None = None
    """A node: ``32G``."""
    time: Time = "01:00:00"
    """``days-hours:minutes:seconds`` until the job must save and queue again; not what a run may take in all."""
    pack: int = Field(1, ge=1)
    """Runs a job, one after another: for runs so short that starting a job is most of their cost."""
    slurm: dict[str, str | int | bool] = {}
    """Any other option of sbatch, by its long name: ``{ "mail-type" = "FAIL", exclusive = true }``; false: none."""

    @property
    def tasks(self) -> int:
        """Processes a node."""
        return self.gpus or self.processes

    @property
    def seconds(self) -> int:
        """The time limit."""
        days, _, clock = self.time.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


class Profile(Strict):
    """One file of ``slurm/profiles``."""

    name: str
    title: str
    launcher: Literal["local", "slurm"]
    array_limit: int = Field(64, ge=1)
    """Jobs of one array that may run at once."""
    array_size: int = Field(1000, ge=1)
    """Jobs of one array: at most what the cluster takes (``scontrol show config``: MaxArraySize)."""
    signal_seconds: int = Field(120, ge=10)
    """So long before the time limit a job is told to save."""
    requeues: int = Field(3, ge=0)
    """So often may a job queue again without having come further."""
    setup: tuple[Line, ...] = ()
    """Lines of shell before the run: modules, conda. A line that fails ends the job."""
    python: str | None = None
    """What starts Python inside the job, such as ``apptainer exec --nv bench.sif python``; by default this Python."""
    environment: dict[str, str] = {}
    default: Resources = Resources()
    pretrain: Resources = Resources()
    evaluate: Resources = Resources()
    protocols: dict[str, Resources] = {}

    @model_validator(mode="after")
    def _sections_fit(self) -> Profile:
        if self.launcher != "slurm" and self.model_fields_set - {"name", "title", "launcher"}:
            extra = min(self.model_fields_set - {"name", "title", "launcher"})
            raise ValueError(f"{extra!r} belongs to the launcher slurm")
        for resources in self._kinds.values():
            taken = OWN & {name.replace("_", "-") for name in resources.slurm}
            if taken:
                raise ValueError(f"bench sets --{min(taken)} itself")
            if resources.seconds <= self.signal_seconds:
                raise ValueError(f"time {resources.time} is not longer than signal_seconds ({self.signal_seconds})")
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of an environment variable")
        return self

    @cached_property
    def _kinds(self) -> dict[str, Resources]:
        """The merged resources of every section."""
        sections: dict[str, tuple[Resources, ...]] = {"pretrain": (self.pretrain,), "evaluate": (self.evaluate,)}
        sections |= {f"evaluate {name}": (self.evaluate, own) for name, own in self.protocols.items()}
        return {kind: _merged(self.default, *those) for kind, those in sections.items()}

    def shapes(self) -> dict[str, Resources]:
        """What each kind of run gets."""
        return dict(self._kinds)

    def resources(self, spec: Spec) -> Resources:
        """What a run of that spec gets: its protocol's section over its kind's over the default."""
        own = f"{spec['kind']} {spec['protocol']['name']}" if "protocol" in spec else ""
        return self._kinds.get(own) or self._kinds[spec["kind"]]


def names() -> list[str]:
    """The shipped profiles."""
    return sorted(file.stem for file in _folder().glob("*.toml"))


def load(name: str) -> Profile:
    """The profile of that name, or at that path (``./my-cluster.toml``).

    Raises:
        BenchError: unknown, unreadable, or with a key or value that is not understood.
    """
    file = Path(name) if name.endswith(".toml") else _folder() / f"{name}.toml"
    if not file.is_file():
        if name.endswith(".toml"):
            raise BenchError("no such profile", where=file)
        raise did_you_mean("profile", name, ["inline", *names()])
    return validate(Profile, {"name": file.stem, **read_toml(file)}, file)


def _merged(*sections: Resources) -> Resources:
    """Later sections replace the keys that they name."""
    named: dict[str, Any] = {}
    for section in sections:
        named |= section.model_dump(exclude_unset=True)
    return Resources.model_validate(named)


def _folder() -> Path:
    return declared("slurm") / "profiles"
