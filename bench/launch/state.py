"""The state of every run, from what is on disk. Imports no torch."""

from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import canonical, read_json
from bench.runfolder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("kind", "suite", "method", "options", "backbone", "protocol", "variant", "seed", "state", "reason", "id"),
    *("protocol_digest", "method_version", "backbone_version", "pretraining_digest"),
]


def folders(runs: Path, patterns: tuple[str, ...] = ()) -> list[RunFolder]:
    """The runs whose id equals, starts with, or matches (``*``) one of the patterns; all without patterns.

    A folder that is not a run's, or whose spec is damaged, is left out with a warning.

    Raises:
        BenchError: a pattern that fits no run.
    """
    found = [RunFolder(path.parent) for path in sorted(runs.glob("*/spec.json")) if _is_run(path.parent)]
    if not patterns:
        return found
    kept: dict[str, RunFolder] = {}
    for pattern in patterns:
        fit = [f for f in found if f.id == pattern or f.id.startswith(pattern) or fnmatch.fnmatch(f.id, pattern)]
        if not fit:
            raise BenchError(f"no run is called {pattern!r}", where=runs, mend="`bench status` lists them")
        kept |= {f.id: f for f in fit}
    return [kept[key] for key in sorted(kept)]


def _is_run(folder: Path) -> bool:
    try:
        RunFolder(folder).spec()
    except BenchError as error:
        warnings.warn(f"not a run, left out: {error}", stacklevel=3)
        return False
    return True


def frame(runs: Path) -> pd.DataFrame:
    """One row a run that is not done; see ``COLUMNS``."""
    import pandas as pd

    return pd.DataFrame([row for f in folders(runs) if (row := describe(f))["state"] != "DONE"], columns=COLUMNS)


def describe(folder: RunFolder) -> dict[str, Any]:
    """One run as a flat record."""
    spec = read_json(folder.path / "spec.json")
    protocol = spec.get("protocol") or {}
    state, reason = folder.state()
    if state in {"PENDING", "QUEUED"} and "parent" in spec:
        parent, why = RunFolder(folder.path.parent / spec["parent"]).state()
        if parent in {"FAILED", "TIMEOUT", "OOM", "CANCELLED"}:
            state, reason = "BLOCKED", f"its pretraining is {parent}: {why}"
    return {
        **{key: spec[key] for key in ("kind", "suite", "method", "backbone", "seed")},
        "options": canonical(spec["options"]),
        "protocol": protocol.get("name"),
        "variant": protocol.get("variant"),
        "state": state,
        "reason": reason,
        "id": folder.id,
        "protocol_digest": protocol.get("digest"),
        "method_version": spec.get("versions", {}).get("method"),
        "backbone_version": spec.get("versions", {}).get("backbone"),
        "pretraining_digest": spec.get("pretraining_digest"),
    }


def progress(folder: RunFolder) -> tuple[float, float] | None:
    """(fraction done, seconds to go) of a run that has begun to train, from its log."""
    log = folder.log()
    spec = read_json(folder.path / "spec.json")
    budget = spec["protocol"]["definition"] if spec["kind"] == "evaluate" else spec["pretraining"]["recipe"] or {}
    unit = "update" if budget.get("iterations") else "epoch"
    whole = budget.get("iterations") or budget.get("epochs")
    if not log or not whole:
        return None
    done = min(1.0, log[-1][unit] / whole)
    return done, log[-1]["seconds"] * (1 - done) / done if done else 0.0
