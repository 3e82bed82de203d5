"""Executes one run from its folder: builds what the spec names, trains or measures it, writes the result.

All that is handed to a job is a run's id and a path. A run that was killed goes on from its checkpoint.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from bench.protocols.definitions import Variant
from bench.results import SCHEMA, sha256
from bench.runfolder import Attempt, RunFolder
from bench.suite import Role
from bench.training import recipe as recipes
from bench.training.device import derive, describe, fabric
from bench.training.loop import Execution, train


def execute(folder: RunFolder, *, data: Path, cache: Path, launcher: str, how: Execution) -> None:
    """Run it to its end; a run that is done returns at once.

    Raises:
        BenchError: bad input, or the run cannot go on (recorded as FAILED, with the reason).
        Interrupted: asked to stop; the state is on disk.
    """
    if folder.done():
        return
    spec = folder.spec()
    made = fabric()
    attempt = _take(folder, launcher, made)
    try:
        with _stop_on_request(folder, how) as how:
            work = _pretrain if spec["kind"] == "pretrain" else _evaluate
            work(spec, folder, attempt, data=data, cache=cache, how=how, fabric=made, started=time.monotonic())
    except KeyboardInterrupt:  # Interrupted, once the state was saved
        _end(attempt, made, "CANCELLED", "stopped on request; run it again to go on")
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


def _take(folder: RunFolder, launcher: str, fabric: Fabric) -> Attempt:
    """The first process takes the attempt, for all."""
    attempt, problem = None, ""
    if fabric.is_global_zero:
        try:
            attempt = folder.take(launcher)
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


def _pretrain(
    spec: Spec,
    folder: RunFolder,
    attempt: Attempt,
    *,
    data: Path,
    cache: Path,
    how: Execution,
    fabric: Fabric,
    started: float,
) -> None:
    pretraining = spec["pretraining"]
    wanted = pretraining["data"]
    dataset = catalog.open_dataset(
        wanted["dataset"], tuple(wanted["splits"]), root=data, cache=cache, **wanted["options"]
    )
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
        pretext = _pretext(spec, task, folder, data=data, cache=cache, how=how, fabric=fabric)
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
            "cost": {"seconds": round(time.monotonic() - started, 1), "attempts": attempt.number},
        }
        card.save(folder.path, task.export(), facts)


def _pretext(
    spec: Spec, task: PretextTask, folder: RunFolder, *, data: Path, cache: Path, how: Execution, fabric: Fabric
) -> dict[str, Any] | None:
    """The pretext metric and picture of a trained task on the suite's held-out images; None where there are none."""
    wanted = spec["pretraining"]
    named = spec["heldout"]
    if wanted["recipe"] is None or named is None:
        return None
    heldout = catalog.open_dataset(named["dataset"], tuple(named["splits"]), root=data, cache=cache, **named["options"])
    batch = how.micro_batch or wanted["recipe"]["batch"]
    found = measure(task, heldout, batch=batch, seed=spec["seed"], fabric=fabric, workers=how.workers)
    write_picture(task, heldout, folder.path / "samples.png", seed=spec["seed"], fabric=fabric)
    return found


def _evaluate(
    spec: Spec,
    folder: RunFolder,
    attempt: Attempt,
    *,
    data: Path,
    cache: Path,
    how: Execution,
    fabric: Fabric,
    started: float,
) -> None:
    parent = RunFolder(folder.path.parent / spec["parent"])
    if not parent.done():
        raise BenchError(f"its parent {parent.id} is {parent.state()[0]}", where=folder.id, mend="run the parent first")
    backbone, facts = card.load(parent.path)
    role = Role.model_validate(spec["role"])
    train_set = open_role(role, "train", data=data, cache=cache)
    test_set = open_role(role, "test", data=data, cache=cache)
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
            "seconds": round(time.monotonic() - started, 1),
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
        if number["low"] <= number["chance"] < 100
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
