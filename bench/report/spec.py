"""What a table is: its rows, its columns and the published numbers, read from ``tables/<name>/``.

``table.toml`` maps what a paper printed to methods and protocols; ``published.csv`` holds the numbers, one a line,
each with where it was read. Imports neither torch nor pandas.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import JsonValue, model_validator

from bench import registry
from bench.errors import BenchError, did_you_mean
from bench.files import canonical
from bench.paths import declared
from bench.protocols.definitions import metric_and_place
from bench.suite import Strict, read_toml, validate

Status = Literal["verified-primary", "verified-origin", "verified-secondary", "unverified"]

FIELDS = ("method", "column", "value", "status", "source", "note")
"""The header of every ``published.csv``."""


class Source(Strict):
    """The paper whose table this is."""

    paper: str
    arxiv: str = ""
    table: str
    """As the paper numbers it: "Table 5"."""
    citation: str
    """A key of ``tables/references.bib``."""


class ColumnSpec(Strict):
    """One column: which number of which protocol it shows."""

    key: str
    """The ``column`` of ``published.csv``."""
    protocol: str
    variant: str = "standard"
    printed: str = ""
    """The variant under which the printed numbers were measured, where a row does not say."""
    reads: str
    """The result's column, ``<metric>@<stage or setting>``: "top1@conv3"."""
    title: str
    group: str = ""
    """The heading over neighbouring columns of the same group."""
    unit: str = "%"
    """Of the printed numbers; measured ones bring their own."""

    @model_validator(mode="after")
    def _reads_a_column(self) -> ColumnSpec:
        try:
            metric_and_place(self.reads)
        except BenchError as error:
            raise ValueError(str(error)) from error
        return self


class RowSpec(Strict):
    """One row: what a paper printed, the method that we measure for it, or both."""

    published: str = ""
    """The exact ``method`` of ``published.csv``; empty: no paper printed the row."""
    label: str = ""
    """How the printed row is called here, where not by its published name."""
    method: str = ""
    """A method's key; empty, or not registered: drawn *not implemented*."""
    options: dict[str, JsonValue] = {}
    backbone: str = ""
    """The backbone that the published number was measured with; measured on it with ``--as-published`` only."""
    data: str = ""
    """The suite's role that it is pretrained on, where not the usual one."""
    variant: str | dict[str, str] = ""
    """The protocol variant that the published numbers were measured with, or one a protocol; empty: the column's."""
    reference: bool = False
    """Shown, but takes no part in bold or rankings."""
    cite: str = ""
    """A key of ``tables/references.bib``, where the method brings none."""
    note: str = ""
    reason: str = ""
    """Why the row is not implemented."""

    @model_validator(mode="after")
    def _names_something(self) -> RowSpec:
        if not (self.published or self.method):
            raise ValueError("a row names a published row, a method, or both")
        return self

    @property
    def key(self) -> tuple[str, str]:
        """(method, options as canonical JSON)."""
        return self.method, canonical(self.options)


class Published(Strict):
    """One number that a paper printed."""

    value: float
    text: str
    """As printed: "38.7"."""
    status: Status
    source: str
    """Where the number was read."""
    note: str


class Declaration(Strict):
    """One ``table.toml``."""

    title: str
    caption: str
    source: Source
    suite: str = ""
    """The suite of the paper's own scale: only there do printed and measured numbers stand side by side."""
    notes: str = ""
    family: tuple[str, ...] = ()
    """Keys of the methods that the papers put above the baselines: compared with those, they are corrected for as one
    family (Holm), and all other rows as another."""
    columns: tuple[ColumnSpec, ...]
    rows: tuple[RowSpec, ...]


class TableSpec(Declaration):
    """A table: its declaration and the published numbers by (published name, column key)."""

    name: str
    published: dict[tuple[str, str], Published]

    def measured_rows(self, registered: list[registry.Entry]) -> list[RowSpec]:
        """The declared rows, then one for every registered method that no row names.

        A row of a method whose role is ``reference`` is one, whatever the table says.
        """
        named = {row.method for row in self.rows}
        rows = [*self.rows, *(RowSpec(method=entry.key) for entry in registered if entry.key not in named)]
        references = {entry.key for entry in registered if entry.facts.get("role") == "reference"}
        return [row.model_copy(update={"reference": True}) if row.method in references else row for row in rows]


def column_names(columns: Sequence[ColumnSpec]) -> list[str]:
    """What to call each column outside the table: its title, after its group's where titles repeat."""
    titles = [column.title for column in columns]
    if len(set(titles)) == len(titles):
        return titles
    return [f"{column.group} {column.title}".strip() for column in columns]


def resolve_variant(row: RowSpec, column: ColumnSpec, as_published: bool) -> str:
    """The protocol variant of a cell: the column's, or the one that the row's number was published under."""
    if not as_published:
        return column.variant
    own = row.variant if isinstance(row.variant, str) else row.variant.get(column.protocol, "")
    return own or (column.printed if row.published else "") or column.variant


def resolve_backbone(row: RowSpec, usual: str, as_published: bool) -> str:
    """The backbone of a row: the suite's ``usual`` one, or the one that the row's number was published with."""
    return row.backbone if as_published and row.backbone else usual


def why_missing(row: RowSpec) -> str:
    """Why a row whose method is absent or not registered has no implementation."""
    return row.reason or _published_only().get(row.method) or "no such method yet"


def names() -> list[str]:
    """The tables that there are."""
    return sorted(file.parent.name for file in declared("tables").glob("*/table.toml"))


def load(name: str) -> TableSpec:
    """The table of that name.

    Raises:
        BenchError: unknown, unreadable, with a key or value that is not understood, or with published numbers that
            its rows and columns do not account for (naming file and line).
    """
    if name not in names():
        raise did_you_mean("table", name, names())
    return read(declared("tables") / name)


def read(folder: Path) -> TableSpec:
    """The table in ``folder``; raises as :func:`load`."""
    file = folder / "table.toml"
    declaration = validate(Declaration, read_toml(file), file)
    _refuse_twice("column", (column.key for column in declaration.columns), file)
    _refuse_twice("published row", (row.published for row in declaration.rows if row.published), file)
    numbers = _read_published(folder / "published.csv", declaration)
    printed = {method for method, _ in numbers}
    for row in declaration.rows:
        if row.published and row.published not in printed:
            raise BenchError(
                f"row {row.published!r} has no number in published.csv",
                where=file,
                mend="write the name as it is there",
            )
    return TableSpec(**dict(declaration), name=folder.name, published=numbers)


def _refuse_twice(what: str, keys: Iterable[str], file: Path) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise BenchError(f"{what} {key!r} stands twice", where=file, mend="remove one of them")
        seen.add(key)


def _read_published(file: Path, declaration: Declaration) -> dict[tuple[str, str], Published]:
    rows = {row.published for row in declaration.rows}
    columns = {column.key for column in declaration.columns}
    numbers: dict[tuple[str, str], Published] = {}
    for where, method, column, number in _lines(file):
        if method not in rows:
            raise BenchError(f"no row is published as {method!r}", where=where, mend="add it to [[rows]] of table.toml")
        if column not in columns:
            raise BenchError(
                f"no column has the key {column!r}", where=where, mend="add it to [[columns]] of table.toml"
            )
        if (method, column) in numbers:
            raise BenchError(f"a second number for {method!r}, {column!r}", where=where, mend="keep one of them")
        numbers[method, column] = number
    return numbers


def _lines(file: Path) -> Iterable[tuple[str, str, str, Published]]:
    """(file:line, method, column, number) of each record of a ``published.csv``."""
    try:
        with file.open(encoding="utf-8", newline="") as text:
            reader = csv.reader(text, strict=True)
            if tuple(next(reader, ())) != FIELDS:
                raise BenchError("wrong header", where=f"{file}:1", mend=f"it is {','.join(FIELDS)}")
            for fields in reader:
                where = f"{file}:{reader.line_num}"
                if len(fields) != len(FIELDS):
                    raise BenchError(f"{len(fields)} fields where there are {len(FIELDS)}", where=where)
                method, column, value, status, source, note = fields
                yield where, method, column, _number(value, status, source, note, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"cannot read the published numbers: {error}", where=file) from error


def _number(text: str, status: str, source: str, note: str, where: str) -> Published:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BenchError(f"{text!r} is not a number", where=where)
    if status not in get_args(Status):
        raise BenchError(f"unknown status {status!r}", where=where, mend=f"one of {', '.join(get_args(Status))}")
    return validate(Published, {"value": value, "text": text, "status": status, "source": source, "note": note}, where)


def _published_only() -> dict[str, str]:
    """{method key: why it has no implementation}, from ``tables/published_only.toml``."""
    file = declared("tables") / "published_only.toml"
    reasons = read_toml(file)
    for key, reason in reasons.items():
        if not isinstance(reason, str):
            raise BenchError(f"{key}: the reason is not a text", where=file, mend=f'write {key} = "why"')
    return reasons
