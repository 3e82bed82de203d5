"""The schema of a result, the store on disk, and everything in it as one tidy DataFrame. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError

from bench.errors import BenchError
from bench.files import canonical
from bench.paths import declared
from bench.suite import Strict, validate

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

COLUMNS = [
    "suite",
    "method",
    "options",
    "backbone",
    "pretraining_data",
    "seed",
    "protocol",
    "variant",
    "protocol_version",
    "protocol_digest",
    "column",
    "value",
    "low",
    "high",
    "n",
    "chance",
    "unit",
    "method_version",
    "backbone_version",
    "pretraining_digest",
    "data_digest",
    "weights_sha256",
    "heldout",
    "evidence",
    "evidence_sha256",
    "command",
    "path",
    "source",
]
"""``heldout``: the score on the held-out slice by which the column's learning rate was chosen, where one was.
``evidence``: the file's path, whether it is there or not."""


class Number(Strict, strict=True):
    """One number with its interval, how many examples it stands on, and what chance gives."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: int = Field(ge=1)
    chance: FiniteFloat
    unit: str


class ProtocolIdentity(Strict, strict=True):
    """Which protocol, under which variant, and the digest of its definition."""

    name: str
    version: int
    variant: str
    digest: str


class Versions(Strict, strict=True):
    """Of the code that made the weights."""

    method: int
    backbone: int


class EvidenceFile(Strict, strict=True):
    """The evidence, beside the result."""

    file: str
    sha256: str


class Result(Strict, strict=True):
    """``result.json``: what one evaluation measured, and everything that identifies it."""

    schema_: Literal[1] = Field(alias="schema")
    method: str
    options: dict[str, Any]
    backbone: str
    pretraining_data: str
    suite: str
    seed: int
    versions: Versions
    pretraining_digest: str
    protocol: ProtocolIdentity
    columns: dict[str, Number]
    selection: dict[str, Any]
    weights_sha256: str
    data: dict[str, Any]
    training: dict[str, Any]
    code: dict[str, Any]
    hardware: dict[str, Any]
    cost: dict[str, Any]
    command: str
    evidence: EvidenceFile
    warnings: list[str] = []


def read(path: Path) -> Result:
    """A result file, strictly.

    Raises:
        BenchError: unreadable, or not of the schema (the key is named).
    """
    try:
        text = path.read_bytes()
        with contextlib.suppress(ValidationError):  # what is wrong is said below
            return Result.model_validate_json(text)
        data = json.loads(text.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read the result: {error}", where=path) from error
    return validate(Result, data, path)


def files(runs: Path | None, published: bool = True) -> Iterator[tuple[str, Path]]:
    """(source, path) of every result: those under ``runs`` first, then those published in ``tables/results``."""
    if runs is not None and runs.is_dir():
        for path in sorted(runs.glob("evaluate-*/result.json")):
            yield "runs", path
    if published:
        for path in sorted((declared("tables") / "results").rglob("s*.json")):
            yield "tables", path


def load(runs: Path | None = None, *, published: bool = True) -> pd.DataFrame:
    """Every result, one row a (result, column); see ``COLUMNS``. Runs come before published results."""
    import pandas as pd

    rows = [row for source, path in files(runs, published) for row in _rows(read(path), source, path)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(result: Result, source: str, path: Path) -> Iterator[tuple[Any, ...]]:
    """One row a column, in the order of ``COLUMNS``."""
    place = (
        result.suite,
        result.method,
        canonical(result.options),
        result.backbone,
        result.pretraining_data,
        result.seed,
        result.protocol.name,
        result.protocol.variant,
        result.protocol.version,
        result.protocol.digest,
    )
    identity = (
        result.versions.method,
        result.versions.backbone,
        result.pretraining_digest,
        "+".join(str(part.get("digest")) for part in result.data.values()),
        result.weights_sha256,
    )
    evidence = str(path.parent / Path(result.evidence.file).name), result.evidence.sha256
    for column, number in result.columns.items():
        numbers = (column, number.value, number.low, number.high, number.n, number.chance, number.unit)
        heldout = _heldout(result.selection, column)
        yield (*place, *numbers, *identity, heldout, *evidence, result.command, str(path), source)


def _heldout(selection: dict[str, Any], column: str) -> float | None:
    metric, _, place = column.partition("@")
    try:
        found = selection["heldout"][place]
        score = found[metric][str(found["chosen_rate"])]
    except (KeyError, TypeError, IndexError):
        return None
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def sha256(path: Path) -> str:
    """The hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
