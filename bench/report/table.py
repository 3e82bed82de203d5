"""Spec + suite + results + states of runs -> :class:`Drawing`: what a table shows, before any format. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import identity, registry
from bench.data.catalog import has_synthetic_motion
from bench.errors import printable
from bench.files import canonical
from bench.protocols import definitions
from bench.report import ranking
from bench.report.cell import CHANCE, OTHER_DATA, STALE, Cell, Place, Store
from bench.report.compare import Tested, Tests, UntestedError
from bench.report.ranking import Ranking
from bench.report.spec import (
    ColumnSpec,
    Published,
    RowSpec,
    Source,
    TableSpec,
    column_names,
    resolve_backbone,
    resolve_variant,
    why_missing,
)
from bench.suite import Role, Suite

if TYPE_CHECKING:
    import pandas as pd

MARK_OF_STATUS = {"verified-primary": "", "verified-origin": "", "verified-secondary": "§", "unverified": "?"}
MEANING_OF_STATUS = {"verified-secondary": "read in a re-print", "unverified": "unverified"}
NOT_PUBLISHED = "–"
SYNTHETIC = "¶"
"""Behind the name of a row."""

_PREPROCESSING = ("resize", "resized", "crop", "scaled", "kernel", "antialias", "train", "test")


@dataclass(frozen=True)
class Row:
    """One row, printed and measured."""

    label: str
    """As the printed row is called; the method's title where no paper printed it."""
    title: str
    """As the method is called."""
    published: str
    """The row's name in ``published.csv``; empty: no paper printed it."""
    method: str
    options: dict[str, Any]
    backbone: str
    pretraining_data: str
    reference: bool
    synthetic_motion: bool
    """Trained on clips in which a program moves what moves."""
    citation: str
    note: str
    numbers: tuple[Published | None, ...]
    """One a column; None: not published."""
    cells: tuple[Cell, ...]
    """One a column."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is measured: the same for rows that papers printed apart and we measure once."""
        return self.method, canonical(self.options), self.backbone, self.pretraining_data


@dataclass(frozen=True)
class Identity:
    """What identifies one protocol variant of the table."""

    protocol: str
    version: int
    variant: str
    digest: str
    data: str
    preprocessing: str
    selection: str
    seeds: tuple[int, ...]
    """Those measured."""


@dataclass(frozen=True)
class Note:
    """A mark, and what it means."""

    mark: str
    text: str


@dataclass(frozen=True)
class Drawing:
    """A table, drawn but for its format."""

    table: str
    title: str
    caption: str
    source: Source
    suite: str
    suite_title: str
    paper: bool
    """At a paper's own scale: published and measured stand side by side; else in separate blocks."""
    as_published: bool
    backbone: str
    dataset: str
    columns: tuple[ColumnSpec, ...]
    units: tuple[str, ...]
    """One a column."""
    rows: tuple[Row, ...]
    protocols: tuple[Identity, ...]
    reading: tuple[str, ...]
    """How the numbers are to be read, a sentence each."""
    notes: tuple[Note, ...]
    remarks: tuple[str, ...]
    """Why cells are as they are, rows alike together; and how the rankings agree."""
    family: tuple[str, ...]
    """The methods that are compared with the baselines as one family."""
    rankings: tuple[Ranking, ...]
    """Away from the paper's own suite: whether the rows rank as they were published."""


def draw(
    spec: TableSpec,
    suite: Suite,
    results: pd.DataFrame,
    states: pd.DataFrame,
    *,
    as_published: bool = False,
    seeds: Sequence[int] | None = None,
    tests: Tests | None = None,
) -> Drawing:
    """The table at that suite, from what was measured.

    Args:
        results: one row a (result, column), as :func:`bench.results.load` gives it.
        states: one row a run that is not done, as :func:`bench.launch.state.frame` gives it. A run that states
            another identity than a fresh one (see :func:`bench.identity.current`) is passed over.
        as_published: each row under the variant and on the backbone of its published number.
        seeds: only these; None: every seed that was measured, and the suite's are the ones to measure.
        tests: those of ``results``; None: nothing is kept from before.

    Raises:
        BenchError: the suite or a protocol cannot be read.
    """
    entries = {entry.key: entry for entry in registry.entries("methods")}
    store = Store(suite, results, states, seeds, {column.protocol for column in spec.columns})
    rows = [
        _row(row, spec, suite, entries.get(row.method), store, as_published)
        for row in spec.measured_rows(list(entries.values()))
    ]
    rows = _mark_other_data(rows)
    tests = tests or Tests(results)
    untested: list[str] = []
    if not as_published:
        rows, untested = _embolden(rows, spec.columns, tests)
    ranked: list[Ranking] = []
    if not _comparable(spec, suite):
        ranked = list(ranking.rankings([row for row in rows if not unranked(row)], spec.columns, tests.kept))
    said = [ranking.sentence(ranked)] if ranked else []
    return Drawing(
        table=spec.name,
        title=printable(spec.title),
        caption=printable(spec.caption),
        source=spec.source,
        suite=suite.name,
        suite_title=printable(suite.title),
        paper=_comparable(spec, suite),
        as_published=as_published,
        backbone=suite.backbone,
        dataset=_datasets(spec, suite),
        columns=spec.columns,
        units=_units(rows, spec.columns),
        rows=tuple(rows),
        protocols=tuple(_identities(rows, suite)),
        reading=tuple(_reading(rows, spec, suite, as_published)),
        notes=tuple(_notes(rows, _comparable(spec, suite))),
        remarks=(*_remarks(rows, spec.columns), *untested, *_left_out(rows, store), *said),
        family=spec.family,
        rankings=tuple(ranked),
    )


def tested(rows: Iterable[Row], at: int, column: ColumnSpec) -> dict[tuple[str, ...], Tested]:
    """By the rows' keys, each once: those that a test of the column may compare.

    They are measured, and on the data of most rows.
    """
    found: dict[tuple[str, ...], Tested] = {}
    for row in rows:
        cell = row.cells[at]
        if cell.state == "measured" and not cell.other_data:
            found.setdefault(row.key, Tested(row.title, cell, column.reads))
    return found


def _row(
    row: RowSpec, spec: TableSpec, suite: Suite, entry: registry.Entry | None, store: Store, as_published: bool
) -> Row:
    label = row.label or row.published
    title = label or row.method
    if entry and not (as_published and label):
        title = entry.title + _apart(row)
    role = row.data or (identity.pretraining_role(row.method) if entry else "pretrain")
    data = suite.roles[role].name() if role in suite.roles else ""
    backbone = resolve_backbone(row, suite.backbone, as_published)
    options = suite.options(row.method, dict(row.options))
    obstacle = suite.lacks(role) if entry else why_missing(row)
    # a command names neither options nor data: where these are not the suite's, there is none
    commanded = not row.options and not row.data
    cells: list[Cell] = []
    places: dict[tuple[str, str], Place] = {}
    for column in spec.columns:
        variant = resolve_variant(row, column, as_published)
        new = Place(suite, row.method, canonical(options), backbone, data, column.protocol, variant)
        place = places.setdefault((column.protocol, variant), new)
        why = obstacle or place.obstacle(column.reads)
        if why:
            cell = Cell("not implemented", printable(why), protocol=column.protocol, variant=variant)
        else:
            cell = store.cell(place, column.reads)
        cells.append(cell if commanded else replace(cell, command=""))
    return Row(
        label=printable(label or title),
        title=printable(title),
        published=row.published,
        method=row.method,
        options=options,
        backbone=backbone,
        pretraining_data=data,
        reference=row.reference,
        synthetic_motion=role == "clips" and role in suite.roles and has_synthetic_motion(suite.roles[role].dataset),
        citation=str(entry.facts.get("citation", row.cite)) if entry else row.cite,
        note=printable(row.note),
        numbers=tuple(spec.published.get((row.published, column.key)) for column in spec.columns),
        cells=tuple(cells),
    )


def unranked(row: Row) -> str:
    """Why a row takes no part in rankings; empty where it does, as pretext tasks that learned from real data do."""
    if row.synthetic_motion:
        return "synthetic motion"
    if row.reference:
        return "reference"
    entry = next((entry for entry in registry.entries("methods") if entry.key == row.method), None)
    if entry is None:
        return "not implemented"
    role = str(entry.facts.get("role", "pretext"))
    return "" if role == "pretext" else role


def _apart(row: RowSpec) -> str:
    """What tells the row from the others of its method: `` (rotations 8)``, `` (on places205)``."""
    words = [f"{key} {_plain(value)}" for key, value in row.options.items()]
    words += [f"on {row.data}"] if row.data else []
    return f" ({', '.join(words)})" if words else ""


def _mark_other_data(rows: list[Row]) -> list[Row]:
    """Mark the numbers that were measured on other data than most of their protocol's."""
    usual: dict[str, Counter[str]] = {}
    for cell in _valued(rows):
        usual.setdefault(cell.protocol, Counter())[cell.data_digest] += 1

    def other(cell: Cell) -> bool:
        return cell.value is not None and cell.data_digest != usual[cell.protocol].most_common(1)[0][0]

    return [replace(row, cells=tuple(replace(c, other_data=other(c)) for c in row.cells)) for row in rows]


def _embolden(rows: list[Row], columns: tuple[ColumnSpec, ...], tests: Tests) -> tuple[list[Row], list[str]]:
    """Per column: the measured cells that no other is significantly above, of rows that are no references.

    Also returns where nothing could be tested, and so nothing is bold.
    """
    best: list[set[tuple[str, ...]]] = []
    untested: dict[str, list[str]] = {}
    for at, (name, column) in enumerate(zip(column_names(columns), columns, strict=True)):
        found = tested((row for row in rows if not row.reference), at, column)
        kept: Sequence[bool] = []
        if len(found) > 1:
            try:
                kept = tests.not_below_any(list(found.values()))
            except UntestedError as why:
                untested.setdefault(printable(str(why)), []).append(printable(name))
        best.append({key for key, holds in zip(found, kept, strict=False) if holds})

    def marked(row: Row) -> Row:
        cells = zip(row.cells, best, strict=True)
        bold = [not row.reference and row.key in keys and not cell.at_chance for cell, keys in cells]
        return replace(row, cells=tuple(replace(c, best=b) for c, b in zip(row.cells, bold, strict=True)))

    said = []
    for reason, names in untested.items():
        where = "" if len(names) == len(columns) else f" in {', '.join(names)}"
        said.append(f"no bold{where}, for nothing can be tested: {reason}")
    return [marked(row) for row in rows], said


def _comparable(spec: TableSpec, suite: Suite) -> bool:
    """Whether the suite is of the paper's own scale and backbone."""
    return suite.paper and suite.name == spec.suite


def _valued(rows: Iterable[Row]) -> Iterator[Cell]:
    return (cell for row in rows for cell in row.cells if cell.value is not None)


def _units(rows: list[Row], columns: tuple[ColumnSpec, ...]) -> tuple[str, ...]:
    return tuple(
        next((row.cells[i].unit for row in rows if row.cells[i].value is not None), column.unit)
        for i, column in enumerate(columns)
    )


def _datasets(spec: TableSpec, suite: Suite) -> str:
    """The data sets that the table's protocols measure on at this suite."""
    known = set(registry.names("protocols"))
    roles = [definitions.load(c.protocol).role for c in spec.columns if c.protocol in known]
    return ", ".join(dict.fromkeys(suite.roles[role].dataset for role in roles if role in suite.roles))


def _and_of(role: Role) -> str:
    """The devkit whose images are trained on too, where there is one."""
    also = role.train_options.get("also")
    return f" and that of {also}" if also else ""


def _identities(rows: list[Row], suite: Suite) -> Iterator[Identity]:
    measured: dict[tuple[str, str, str], set[int]] = {}
    for row in rows:
        for cell in row.cells:
            if cell.digest:
                measured.setdefault((cell.protocol, cell.variant, row.backbone), set()).update(cell.seeds)
    variants: dict[str, definitions.Variant] = {}
    seeds: dict[str, set[int]] = {}
    for (protocol, variant, backbone), own in measured.items():
        made = definitions.load(protocol).variant(variant, suite, backbone)
        variants[made.digest] = made
        seeds.setdefault(made.digest, set()).update(own)
    for digest, made in variants.items():
        role = suite.role(made.role)
        yield Identity(
            made.protocol,
            made.version,
            made.name,
            digest,
            f"{role.dataset}, trained on {'+'.join(role.train)}{_and_of(role)}, tested on {'+'.join(role.test)}",
            "; ".join(
                f"{key.replace('_', ' ')}: {_plain(made.definition[key])}"
                for key in _PREPROCESSING
                if key in made.definition
            ),
            _plain(made.definition.get("selection", "none")),
            tuple(sorted(seeds[digest])),
        )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else printable(str(value))


def _reading(rows: list[Row], spec: TableSpec, suite: Suite, as_published: bool) -> Iterator[str]:
    units = set(_units(rows, spec.columns))
    if len(units) == 1:
        yield f"Values in {units.pop()}."
    valued = list(_valued(rows))
    if any(cell.sd is None for cell in valued):
        yield "[low, high]: 95 % bootstrap interval over the test examples, one seed."
    if any(cell.sd is not None for cell in valued):
        yield "±: standard deviation over seeds."
    if any(cell.best for cell in valued):
        yield (
            "Bold: significantly below no other row of the column (one-sided tests over seeds and test examples, Holm "
            "over all ordered pairs at 5 %). Reference rows take no part, and what is at chance is never bold."
        )
    if any(cell.best and len(cell.seeds) == 1 for cell in valued):
        yield "Rows with one seed are compared over the test examples only."
    if as_published:
        yield "Each row under the variant and on the backbone of its published number, so no bold across rows."
    variants = dict.fromkeys(
        resolve_variant(row, column, as_published=True)
        for row in spec.rows
        if row.published
        for column in spec.columns
        if (row.published, column.key) in spec.published
    )
    if _comparable(spec, suite) and not as_published and variants.keys() - {column.variant for column in spec.columns}:
        yield f"Published under {', '.join(variants)}; measured under one variant for all rows."
    if spec.notes:
        yield printable(spec.notes)


def _notes(rows: list[Row], comparable: bool) -> Iterator[Note]:
    """A note for every mark that occurs."""
    valued = list(_valued(rows))
    if any(cell.state == "stale" for cell in valued):
        yield Note(STALE, "stale: measured under another identity than a result of today, so never bold")
    if any(row.synthetic_motion for row in rows):
        yield Note(SYNTHETIC, "synthetic motion: trained on clips in which a program moves the objects; not ranked")
    if any(cell.at_chance for cell in valued):
        yield Note(CHANCE, "at chance: the interval contains what guessing gives, or lies below it")
    if any(cell.other_data for cell in valued):
        yield Note(OTHER_DATA, "measured on other data than most rows (another data digest)")
    for status, text in MEANING_OF_STATUS.items():
        numbers = [number for row in rows for number in row.numbers if number and number.status == status]
        if numbers:
            sources = dict.fromkeys(printable(number.source) for number in numbers)
            apart = [s for s in sources if not any(s in other for other in sources if other != s)]
            yield Note(MARK_OF_STATUS[status], f"{text}: {'; '.join(apart)}")
    if any(None in row.numbers for row in rows if row.published or comparable):
        yield Note(NOT_PUBLISHED, "not published")


def _remarks(rows: list[Row], columns: tuple[ColumnSpec, ...]) -> Iterator[str]:
    """One remark for all rows of which the same is to be said."""
    alike: dict[tuple[str, str], list[str]] = {}
    names = column_names(columns)
    for row in rows:
        where: dict[str, list[str]] = {}
        for name, cell in zip(names, row.cells, strict=True):
            if cell.reason:
                said = cell.reason if cell.state == "measured" else f"{cell.state} ({cell.reason})"
                where.setdefault(said, []).append(printable(name))
        for said, titles in where.items():
            part = "" if len(titles) == len(columns) else f" in {', '.join(titles)}"
            alike.setdefault((said, part), []).append(row.title)
    for (said, part), titles in alike.items():
        yield f"{said}{part}: {'all rows' if len(titles) == len(rows) > 1 else ', '.join(dict.fromkeys(titles))}"


def _left_out(rows: list[Row], store: Store) -> Iterator[str]:
    """No result of the suite vanishes without a word."""
    other = sorted(store.measured - {(row.method, canonical(row.options)) for row in rows})
    if other:
        names = ", ".join(method if options == "{}" else f"{method} {options}" for method, options in other)
        yield f"measured at this suite, but no row of this table: {printable(names)}"
