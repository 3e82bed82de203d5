"""What ``bench list``, ``show``, ``logs`` and ``data status`` print."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import registry
from bench import suite as suites
from bench.errors import BenchError
from bench.files import atomic, read_json
from bench.protocols import definitions
from bench.runfolder import UNDER_WAY, RunFolder

ASK_SECONDS = 10
"""Between questions to Slurm about a run whose log is followed."""


def records(noun: str) -> list[dict[str, Any]]:
    """One flat record a thing, each with its ``key``."""
    return {
        "methods": _methods,
        "protocols": _protocols,
        "backbones": _backbones,
        "suites": _suites,
        "tables": _tables,
        "datasets": _datasets,
    }[noun]()


def _methods() -> list[dict[str, Any]]:
    return [
        {
            "key": entry.key,
            "title": entry.title,
            "role": entry.facts.get("role", "pretext"),
            "version": entry.version,
            "citation": entry.facts.get("citation"),
            "needs": ", ".join(sorted(entry.facts.get("needs", {"image"}))),
            "supports": ", ".join(registry.families(entry.key)),
            "origin": entry.origin,
        }
        for entry in registry.entries("methods")
    ]


def _protocols() -> list[dict[str, Any]]:
    found = [definitions.load(name) for name in registry.names("protocols")]
    return [
        {"key": d.name, "title": d.title, "version": d.version, "role": d.role, "variants": ", ".join(d.variants)}
        for d in found
    ]


def _backbones() -> list[dict[str, Any]]:
    return [
        {"key": e.key, "title": e.title, "version": e.version, "citation": e.facts.get("citation"), "origin": e.origin}
        for e in registry.entries("backbones")
    ]


def _suites() -> list[dict[str, Any]]:
    found = [suites.load(name) for name in suites.names()]
    return [{"key": s.name, "title": s.title, "backbone": s.backbone, "description": s.description} for s in found]


def _tables() -> list[dict[str, Any]]:
    from bench.report import spec

    found = [spec.load(name) for name in spec.names()]
    return [{"key": t.name, "title": t.title, "source": t.source.paper} for t in found]


def _datasets() -> list[dict[str, Any]]:
    from bench.data import catalog

    found = {name: catalog.card(name) for name in catalog.names()}
    return [{"key": name, "title": card.title, "licence": card.licence} for name, card in found.items()]


def data_records(data: Path, runs: Path) -> list[dict[str, Any]]:
    """What was found where, one record a split."""
    from bench.data import catalog
    from bench.paths import cache_root

    return [dataclasses.asdict(found) for found in catalog.status(data, cache_root(runs))]


def method(name: str, *, runs: Path, suite: str | None) -> str:
    """A method's title, recipe and docstring."""
    entry = registry.entry("methods", name)
    recipe = entry.facts.get("recipe")
    lines = [
        f"{entry.title} ({entry.key}), version {entry.version}, {entry.facts.get('role', 'pretext')}, "
        f"from {entry.origin}",
        f"cite: {entry.facts.get('citation')}",
        f"backbones: {', '.join(registry.families(name))}",
        "",
        entry.doc.strip(),
        "",
        f"recipe: {json.dumps(recipe.to_dict(), indent=2) if recipe else 'nothing is trained'}",
        f"file: {entry.file}",
    ]
    return "\n".join(lines)


def copy_samples(name: str, out: Path, *, runs: Path, suite: str | None) -> str:
    """Copy the picture that the method's newest pretraining made; one line that says whose it is.

    Raises:
        BenchError: there is none yet.
    """
    registry.entry("methods", name)
    made = [
        file
        for file in runs.glob(f"pretrain-{name}-*/samples.png")
        if read_json(file.parent / "spec.json")["method"] == name
        and suite in (None, read_json(file.parent / "spec.json")["suite"])
    ]
    if not made:
        mend = f"make one: bench run --suite {suite or 'demo'} --method {name}"
        raise BenchError(f"no pretraining of {name} has left a picture", where=runs, mend=mend)
    newest = max(made, key=lambda file: file.stat().st_mtime)
    with atomic(out, "wb") as file:
        file.write(newest.read_bytes())
    return f"{out}: of {newest.parent.name}"


def protocol(name: str, *, runs: Path, suite: str | None) -> str:
    """Everything that identifies each variant, from the protocol's files."""
    found = definitions.load(name)
    at = suites.load(suite) if suite else None
    lines = [f"{found.title} ({found.name}), version {found.version}, data role {found.role}"]
    for key, backbone in found.places():
        variant = found.variant(key, at, backbone)
        place = (f" on {backbone}" if backbone else "") + (f" at suite {suite}" if at and key == "standard" else "")
        lines += ["", f"[{key}]{place}  digest {variant.digest}"]
        width = max(len(k) for k in variant.definition)
        lines += [f"  {k:<{width}}  {_words(v)}" for k, v in variant.definition.items()]
    return "\n".join(lines)


def _words(value: Any) -> str:
    """A value of a definition, as its file writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def run(name: str, *, runs: Path, suite: str | None) -> str:
    """A run's state, spec, attempts, and its result where it has one."""
    from bench.launch.state import describe, folders

    parts = []
    for folder in folders(runs, (name,)):
        row = describe(folder)
        parts.append(f"{folder.id}: {row['state']}" + (f" ({row['reason']})" if row["reason"] else ""))
        parts.append(f"folder: {folder.path}")
        parts.append("spec: " + json.dumps(folder.spec(), indent=2))
        parts += [f"attempt {a['attempt']}: {a['state']} {a.get('reason', '')}".rstrip() for a in folder.attempts()]
        result = folder.path / "result.json"
        if result.is_file():
            parts.append("result: " + result.read_text(encoding="utf-8").rstrip())
    return "\n".join(parts)


def watched(runs: Path, names: tuple[str, ...], *, watch: bool) -> Iterator[list[dict[str, Any]]]:
    """The state of the runs that tables, ids and patterns name; with ``watch`` until none runs or waits."""
    from bench.launch import state
    from bench.report import spec

    tables = [name for name in names if name in spec.names()]
    patterns = tuple(name for name in names if name not in tables)
    while True:
        found = {folder.id: folder for name in tables for folder in state.of_table(name, runs)}
        if patterns or not tables:
            found |= {folder.id: folder for folder in state.folders(runs, patterns)}
        rows = state.rows([found[run_id] for run_id in sorted(found)])
        yield rows
        if not watch or not any(row["state"] in UNDER_WAY for row in rows):
            return
        time.sleep(5)


def follow_log(folder: RunFolder, *, follow: bool) -> Iterator[str]:
    """The lines of a run's log; with ``follow`` until the run neither runs nor waits.

    Of a run that has no log, what its batch job printed.
    """
    from bench.launch import state

    shown = noted = 0
    waits_for: str | None = None
    for look in itertools.count():
        if look % ASK_SECONDS == 0 or not folder.standing().under_way:
            standing = state.reconcile([folder])[folder.id]
        if follow and standing.state == "QUEUED" and standing.reason != waits_for:
            waits_for = standing.reason
            yield f"{folder.id}: QUEUED" + (f" ({waits_for})" if waits_for else "")
        notes = _lines(folder.path / "out.log")
        yield from notes[noted:]
        noted = len(notes)
        records = folder.log()
        for record in records[shown:]:
            yield " ".join(f"{k} {v:.4g}" for k, v in record.items() if isinstance(v, int | float))
        shown = len(records)
        if not follow or not standing.under_way:
            break
        time.sleep(1)
    if not shown and (job := folder.job()):
        for file in state.job_output(folder, job):
            yield from _lines(file)
    yield f"{folder.id}: {standing.state}" + (f" ({standing.reason})" if standing.reason else "")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
