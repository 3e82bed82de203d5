"""Executes one run from its folder: builds what the spec names, trains or measures it, writes the result.

All that is handed to a job is a run's id and a path. A run that was killed goes on from its checkpoint.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from bench import __version__, registry
from bench.checkpoints import card
from bench.data import catalog
from bench.data.base import Dataset
from bench.data.heldout import held_out
from bench.data.images import subset
from bench.data.pack import Packed, packed
from bench.errors import BenchError
from bench.files import atomic, canonical, write_json
from bench.identity import Spec
from bench.methods import base as methods
from bench.methods.base import PretextTask
from bench.methods.pretext import measure, write_picture
from bench.protocols.base import Column, Protocol, text
from bench.protocols.definitions import Variant, of_one_class
from bench.results import SCHEMA, sha256
from bench.runfolder import Attempt, RunFolder
from bench.suite import Role
from bench.training import recipe as recipes
from bench.training.device import derive, describe, fabric
from bench.training.loop import Execution, train

_ON_REQUEST = "CANCELLED", "stopped on request; run it again to go on"


@dataclass(frozen=True)
class Executor:
    """Who executes runs, and where they find their data."""

    launcher: str
    data: Path
    cache: Path
    requeues: int | None = None
    """So often may a batch system start a run again that does not come further; None: as often as it likes."""
    stopped: Callable[[], tuple[str, str]] = lambda: _ON_REQUEST
    """The state and reason of a run that ``Execution.stop`` stopped."""


@dataclass(frozen=True)
class _Context:
    """One execution of one run."""

    spec: Spec
    folder: RunFolder
    attempt: Attempt
    by: Executor
    how: Execution
    fabric: Fabric
    started: float

    def open(self, named: dict[str, Any]) -> Dataset:
        """The data set that a spec names by dataset, splits and options."""
        at = {"root": self.by.data, "cache": self.by.cache}
        return catalog.open_dataset(named["dataset"], tuple(named["splits"]), **at, **named["options"])

    def seconds(self) -> float:
        """Since the execution began, and what earlier ones trained of what it went on from."""
        return round(time.monotonic() - self.started + self.attempt.before, 1)


def execute(folder: RunFolder, by: Executor, how: Execution) -> None:
    """Run it to its end; a run that is done returns at once.

    Raises:
        BenchError: bad input, or the run cannot go on (recorded as FAILED, with the reason).
        Interrupted: asked to stop; the state is on disk.
    """
    if folder.done():
        return
    spec = folder.spec()
    made = fabric(_precision(spec))
    attempt = _take(folder, by, made)
    try:
        _same_code(spec)
        with _stop_on_request(folder, how) as how:
            work = _pretrain if spec["kind"] == "pretrain" else _evaluate
            work(_Context(spec, folder, attempt, by, how, made, time.monotonic()))
    except KeyboardInterrupt:  # Interrupted, once the state was saved
        _end(attempt, made, *(_ON_REQUEST if folder.cancelled() else by.stopped()))
        raise
    except torch.OutOfMemoryError as error:
        _end(attempt, made, "OOM", "out of GPU memory")
        mend = "halve --micro-batch; gradients are then added up to the same batch"
        raise BenchError("out of GPU memory", where=folder.id, mend=mend) from error
    except BaseException as error:
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        _end(attempt, made, "FAILED", reason)
        raise
    _end(attempt, made, "DONE")
    if made.is_global_zero:
        attempt.tidy()
    made.barrier()


def _precision(spec: Spec) -> str | None:
    """That of a pretraining's recipe; a protocol measures at what the device is best at."""
    recipe = spec["pretraining"]["recipe"] if spec["kind"] == "pretrain" else None
    return recipe.get("precision") if recipe else None


def _take(folder: RunFolder, by: Executor, fabric: Fabric) -> Attempt:
    """The first process takes the attempt, for all."""
    attempt, problem = None, ""
    if fabric.is_global_zero:
        try:
            attempt = folder.take(by.launcher, by.requeues)
        except BenchError as error:
            if fabric.world_size == 1:
                raise
            problem = str(error)
    number, problem = fabric.broadcast((attempt.number if attempt else 0, problem), src=0)
    if problem:
        raise BenchError(problem)
    return attempt or Attempt(folder, number, {})


def _end(attempt: Attempt, fabric: Fabric, state: str, reason: str = "") -> None:
    if fabric.is_global_zero:
        attempt.end(state, reason)


def open_role(role: Role, split: str, *, data: Path, cache: Path) -> Dataset:
    """The data set bound to a role: its ``train`` or ``test`` splits."""
    splits, own = (role.train, role.train_options) if split == "train" else (role.test, role.test_options)
    return catalog.open_dataset(role.dataset, splits, root=data, cache=cache, **{**role.options, **own})


def _pretrain(at: _Context) -> None:
    spec, folder, attempt, fabric, how = at.spec, at.folder, at.attempt, at.fabric, at.how
    pretraining = spec["pretraining"]
    wanted = pretraining["data"]
    dataset = at.open(wanted)
    _same_data(spec["data"]["train"], dataset)
    if wanted["without_heldout"]:
        kept = ~held_out(dataset.ids, dataset.labels, wanted["without_heldout"])
        dataset = subset(dataset, np.flatnonzero(kept))
    task = methods.make(spec["method"], spec["backbone"], spec["options"], seed=spec["seed"])
    task.setup(dataset)
    training: dict[str, Any] = {}
    if pretraining["recipe"] is None:
        task.prepare(dataset, torch.Generator().manual_seed(derive(spec["seed"], "prepare")))
    else:
        recipe = recipes.from_dict(pretraining["recipe"])
        training = train(task, dataset, recipe, seed=spec["seed"], fabric=fabric, attempt=attempt, how=how)
    if fabric.is_global_zero:
        attempt.guard()
        pretext = _pretext(at, task)
        facts = {
            "run": folder.id,
            **{key: spec[key] for key in ("method", "options", "suite", "seed", "versions", "pretraining_data")},
            "pretraining": pretraining,
            "pretraining_digest": spec["pretraining_digest"],
            "data": {"train": {"name": dataset.name, "digest": spec["data"]["train"]["digest"], "n": len(dataset)}},
            "training": training,
            "pretext": pretext,
            "code": _code(),
            "hardware": describe(fabric),
            "cost": {"seconds": at.seconds(), "attempts": attempt.number},
        }
        card.save(folder.path, task.export(), facts)


def _pretext(at: _Context, task: PretextTask) -> dict[str, Any] | None:
    """The pretext metric and picture of a trained task on the suite's held-out images; None where there are none."""
    wanted, named, seed = at.spec["pretraining"], at.spec["heldout"], at.spec["seed"]
    if wanted["recipe"] is None or named is None:
        return None
    heldout = at.open(named)
    batch = at.how.micro_batch or wanted["recipe"]["batch"]
    found = measure(task, heldout, batch=batch, seed=seed, fabric=at.fabric, workers=at.how.workers)
    write_picture(task, heldout, at.folder.path / "samples.png", seed=seed, fabric=at.fabric)
    return found


def _evaluate(at: _Context) -> None:
    spec, folder, attempt, fabric, how, cache = at.spec, at.folder, at.attempt, at.fabric, at.how, at.by.cache
    parent = RunFolder(folder.path.parent / spec["parent"])
    if not parent.done():
        raise BenchError(f"its parent {parent.id} is {parent.state()[0]}", where=folder.id, mend="run the parent first")
    backbone, facts = card.load(parent.path)
    role = Role.model_validate(spec["role"])
    train_set = open_role(role, "train", data=at.by.data, cache=cache)
    test_set = open_role(role, "test", data=at.by.data, cache=cache)
    _same_data(spec["data"]["train"], train_set)
    _same_data(spec["data"]["test"], test_set)
    overlap = set(train_set.ids) & set(test_set.ids)
    if overlap:
        raise BenchError(f"{len(overlap)} images are in both train and test, {min(overlap)} first", where=folder.id)
    named = spec["protocol"]
    protocol = make_protocol(named)
    train_set, test_set = (packed(found, protocol.geometry(backbone), cache) for found in (train_set, test_set))
    for found in (train_set, test_set):
        if isinstance(found, Packed):
            folder.note(f"{found.name}: images come from the packed store {found.folder}")
    measured = protocol.evaluate(
        backbone,
        train_set,
        test_set,
        method=spec["method"],
        seed=spec["seed"],
        fabric=fabric,
        attempt=attempt,
        how=how,
    )
    if not fabric.is_global_zero:
        return
    attempt.guard()
    measured.evidence["run"] = text(folder.id)
    evidence = folder.path / "evidence.npz"
    with atomic(evidence, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **measured.evidence)
    columns = protocol.columns(measured.evidence)
    result = {
        "schema": SCHEMA,
        **{key: spec[key] for key in ("method", "options", "backbone", "pretraining_data", "suite", "seed")},
        "versions": spec["versions"],
        "pretraining_digest": spec["pretraining_digest"],
        "protocol": {key: named[key] for key in ("name", "version", "variant", "digest")},
        "columns": columns,
        "selection": measured.selection,
        "weights_sha256": facts["weights_sha256"],
        "data": {
            split: {
                "name": found.name,
                "digest": spec["data"][split]["digest"],
                "n": len(found),
                "packed": isinstance(found, Packed),
            }
            for split, found in (("train", train_set), ("test", test_set))
        },
        "training": measured.training,
        "code": _code(),
        "hardware": describe(fabric),
        "cost": {
            "seconds": at.seconds(),
            "pretraining_seconds": facts["cost"]["seconds"],
            "attempts": attempt.number,
        },
        "command": command(spec),
        "evidence": {"file": evidence.name, "sha256": sha256(evidence)},
        "warnings": measured.warnings + _at_chance(columns),
    }
    attempt.guard()
    write_json(folder.path / "result.json", result)


def make_protocol(named: dict[str, Any]) -> Protocol:
    """The protocol that a spec names, with the definition that the spec holds.

    Raises:
        BenchError: the code has another version of the protocol than the spec.
    """
    entry = registry.entry("protocols", named["name"])
    if entry.version != named["version"]:
        raise BenchError(
            f"the run was planned for version {named['version']} of {named['name']}, the code has {entry.version}",
            mend="plan again: the same `bench reproduce` makes a new run",
        )
    return entry.load()(Variant(named["name"], named["version"], named["variant"], named["definition"]))


def command(spec: Spec) -> str:
    """The command that makes this number."""
    parts = ["bench run", f"--suite {spec['suite']}", f"--method {spec['method']}"]
    if spec["options"]:
        parts.append(f"--options {shlex.quote(canonical(spec['options']))}")
    named = spec.get("protocol")
    if named:
        parts.append(f"--protocol {named['name']}")
        if named["variant"] != "standard":
            parts.append(f"--variant {named['variant']} --backbone {spec['backbone']}")
    return " ".join([*parts, f"--seed {spec['seed']}"])


@contextmanager
def _stop_on_request(folder: RunFolder, how: Execution) -> Iterator[Execution]:
    """SIGTERM, Ctrl-C and ``bench cancel`` ask the loop to save and stop; a second Ctrl-C interrupts at once."""
    asked, looked = False, 0.0

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    def stop() -> bool:
        nonlocal asked, looked
        if not asked and time.monotonic() - looked > 1:
            looked = time.monotonic()
            asked = folder.cancelled()
        return asked or how.stop()

    old = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield replace(how, stop=stop)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _same_code(spec: Spec) -> None:
    """A job may start long after it was submitted, under newer code."""
    now = {
        "method": registry.entry("methods", spec["method"]).version,
        "backbone": registry.entry("backbones", spec["backbone"]).version,
    }
    for kind, found in now.items():
        planned, key = spec["versions"][kind], spec[kind]
        if planned != found:
            raise BenchError(
                f"the run was planned for version {planned} of {key}, the code has {found}",
                mend="plan again: the same `bench reproduce` makes a new run",
            )


def _same_data(planned: dict[str, Any], found: Dataset) -> None:
    if planned["digest"] != found.digest:
        raise BenchError(
            f"{found.name} is not the data that the run was planned for ({found.digest}, not {planned['digest']})",
            mend="plan again: the same `bench reproduce` makes a new run",
        )


def _at_chance(columns: dict[str, Column]) -> list[str]:
    return [
        f"{name} is at chance ({number['value']:.1f} %, chance {number['chance']:.1f} %)"
        for name, number in columns.items()
        if number["low"] <= number["chance"] < 100 and not of_one_class(name)
    ]


def _code() -> dict[str, Any]:
    """Which code ran: the version, and the commit where there is one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD") if (here.parent / ".git").exists() else None
    changed = bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"bench": __version__, "commit": commit, "changed": changed}
