"""Results of the smoke suite, made in this process, and a folder ``tables`` of a test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import registry, workflow
from bench.results import sha256


def make_runs(runs: Path, methods: str, seeds: str = "0") -> Path:
    """Execute ``methods`` under imagenet-linear."""
    asked = workflow.Request(("imagenet-linear",), "smoke", methods, seeds, runs, runs)
    assert not workflow.run_plan(asked, "inline", workflow.How(workers=0), lambda line: None)
    return runs


def own_tables(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """``folder/tables``, which stands in for the checkout's; the bibliography has one entry."""
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    (tables / "references.bib").write_text("@article{gidaris2018unsupervised,\n}\n")
    for module in ("bench.published", "bench.submission", "bench.registry", "bench.results", "bench.scaffold"):
        patch.setattr(f"{module}.declared", lambda name: folder / name)
    registry.refresh()
    return tables


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def edit_evidence(file: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change an evidence file, and name the new one in its result."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    np.savez_compressed(file, **arrays)
    name_evidence(file)


def name_evidence(file: Path) -> None:
    """Write an evidence file's sha256 into its result."""
    edit(file.with_suffix(".json"), lambda result: result["evidence"].update(sha256=sha256(file)))
