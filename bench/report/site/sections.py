"""What is drawn: every table at its paper's scale and wherever it was measured, and a leaderboard a suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench import suite as suites
from bench.errors import printable
from bench.protocols import definitions
from bench.report import layout, plots, spec, table
from bench.report.cell import Cell
from bench.report.draw import OnDisk
from bench.report.layout import Block, Line
from bench.report.site import figures
from bench.report.site.frame import slug
from bench.report.spec import ColumnSpec, TableSpec
from bench.report.table import Drawing, Row
from bench.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

_SCALE = "alexnet"
"""Where the rows of a table are looked up that no suite measures at its paper's scale."""
_PRINTED_MARKS = {*table.MARK_OF_STATUS.values(), table.NOT_PUBLISHED}
_FOREMOST = ("running", "failed", "stale", "not run", "not implemented", "measured")


@dataclass(frozen=True)
class Section:
    """A table at one suite."""

    key: str
    title: str
    file: str
    """Of its CSV and LaTeX, without suffix."""
    drawing: Drawing
    blocks: tuple[Block, ...]
    figures: tuple[plots.Figure, ...]
    measures: bool = True
    """Whether the suite is one at which the table could be measured."""
    reading: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    notes: tuple[table.Note, ...] = ()

    @property
    def command(self) -> str:
        """Computes a cell."""
        return layout.command(self.drawing)


@dataclass(frozen=True)
class Board:
    """The leaderboard of one suite."""

    suite: Suite
    drawing: Drawing
    block: Block


class Store:
    """Everything on disk, and what is drawn of it, each thing once."""

    def __init__(self, runs: Path, suite_names: Sequence[str]) -> None:
        self.runs = runs
        self.suites = {one.name: one for one in map(suites.load, suite_names)}
        self.specs = [spec.load(name) for name in spec.names()]
        self.methods = registry.entries("methods")
        disk = OnDisk(runs)
        found, states, self._tests = disk.results, disk.states, disk.tests
        self._results: dict[str, pd.DataFrame] = {str(name): own for name, own in found.groupby("suite")}
        self._states: dict[str, pd.DataFrame] = {str(name): own for name, own in states.groupby("suite")}
        self._none = found.iloc[:0], states.iloc[:0]
        self.measured = [self.suites[name] for name in sorted(self._results.keys() & self.suites.keys())]
        self.unknown = {printable(name): len(own) for name, own in self._results.items() if name not in self.suites}

    def draw(self, of: TableSpec, at: Suite) -> Drawing:
        """The table at that suite."""
        no_results, no_states = self._none
        own, states = self._results.get(at.name, no_results), self._states.get(at.name, no_states)
        return table.draw(of, at, own, states, tests=self._tests)

    @cached_property
    def columns(self) -> dict[str, set[tuple[str, str, str]]]:
        """{suite: the (protocol, variant, column) that have results there}."""
        keys = ("protocol", "variant", "column")
        return {name: set(zip(*(own[key] for key in keys), strict=True)) for name, own in self._results.items()}

    @cached_property
    def sections(self) -> dict[str, list[Section]]:
        """Of every table: the published numbers first."""
        return {one.name: list(_sections(self, one)) for one in self.specs}

    @cached_property
    def boards(self) -> list[Board]:
        """One a suite that has results."""
        return [board for at in self.measured if (board := _board(self, at))]


def numbers(drawing: Drawing) -> Iterator[Cell]:
    """The cells that have a number."""
    return (cell for row in drawing.rows for cell in row.cells if cell.value is not None)


def _sections(store: Store, of: TableSpec) -> Iterator[Section]:
    own = store.suites.get(of.suite)
    yield _first(of, store.draw(of, own or store.suites[_SCALE]), at_home=own is not None)
    for at in store.measured:
        hit = any((column.protocol, column.variant, column.reads) in store.columns[at.name] for column in of.columns)
        if at is own or not hit or (own and registry.family(own.backbone) != registry.family(at.backbone)):
            continue
        drawing = store.draw(of, at)
        if any(numbers(drawing)):
            yield _elsewhere(of, drawing)


def _first(of: TableSpec, drawing: Drawing, *, at_home: bool) -> Section:
    """What was published: beside what was measured at the paper's scale, or else how far that is."""
    printed = tuple(figures.across(drawing, measured=False))
    section = Section("published", "Published", _file(of, drawing), drawing, (_published(drawing),), printed)
    if not at_home:
        return replace(section, measures=False, remarks=_lacking(of), notes=_of_printed(drawing))
    section = replace(section, reading=_apart_from(of, drawing), remarks=drawing.remarks, notes=drawing.notes)
    if not any(numbers(drawing)):
        return replace(section, blocks=(_with_states(drawing),))
    return replace(
        section,
        title=f"Published and measured, suite {drawing.suite}",
        blocks=tuple(layout.blocks(drawing)),
        figures=(*figures.across(drawing, measured=True), *figures.against(drawing), *printed),
    )


def _elsewhere(of: TableSpec, drawing: Drawing) -> Section:
    """What was measured at a suite that is not the paper's."""
    return Section(
        key=f"suite-{slug(drawing.suite)}",
        title=f"Measured, suite {drawing.suite}",
        file=_file(of, drawing),
        drawing=drawing,
        blocks=tuple(block for block in layout.blocks(drawing) if block.kind == "measured"),
        figures=(*figures.across(drawing, measured=True), *figures.ranks(drawing)),
        reading=_apart_from(of, drawing),
        remarks=drawing.remarks,
        notes=tuple(note for note in drawing.notes if note not in _of_printed(drawing)),
    )


def _lacking(of: TableSpec) -> tuple[str, ...]:
    """The protocols without which no suite measures the table."""
    known = registry.names("protocols")
    names = dict.fromkeys(column.protocol for column in of.columns if column.protocol not in known)
    return tuple(f"not measured: protocol {printable(name)} does not exist yet" for name in names)


def _of_printed(drawing: Drawing) -> tuple[table.Note, ...]:
    """The notes on published numbers."""
    return tuple(note for note in drawing.notes if note.mark in _PRINTED_MARKS)


def _apart_from(of: TableSpec, drawing: Drawing) -> tuple[str, ...]:
    """How the numbers are to be read, but for the table's own notes: they stand at the head of the page."""
    return tuple(sentence for sentence in drawing.reading if sentence != printable(of.notes))


def _with_states(drawing: Drawing) -> Block:
    """What was published, and at the end of each row how far its measurement is."""
    block = _published(drawing)
    rows = sorted(drawing.rows, key=lambda row: not row.published)
    lines = tuple(Line(row.label, row, (*row.numbers, _foremost(row.cells))) for row in rows)
    groups = (*block.groups, ("", 1)) if block.groups else ()
    return replace(block, lines=lines, heads=(*block.heads, "measured"), groups=groups)


def _published(drawing: Drawing) -> Block:
    return next(block for block in layout.blocks(replace(drawing, paper=False)) if block.kind == "published")


def _foremost(cells: Sequence[Cell]) -> Cell:
    """The cell of a row that says most: what runs or failed before what nobody tried."""
    return min(cells, key=lambda cell: _FOREMOST.index(cell.state))


def _file(of: TableSpec, drawing: Drawing) -> str:
    return f"{slug(of.name)}.{slug(drawing.suite)}"


def _board(store: Store, at: Suite) -> Board | None:
    """All methods under every column that some table shows and somebody measured at the suite."""
    columns: dict[tuple[str, str, str], ColumnSpec] = {}
    for one in sorted(store.specs, key=lambda of: -len(of.columns)):
        for column in one.columns:
            key = (column.protocol, column.variant, column.reads)
            if key in store.columns[at.name] and column.protocol in registry.names("protocols"):
                columns.setdefault(key, column)
    if not columns:
        return None
    by_protocol = sorted(columns.items(), key=lambda one: one[0][:2])
    of = TableSpec(
        name="leaderboard",
        title=f"Leaderboard, suite {at.name}",
        caption="Every registered method under every column that was measured.",
        source=spec.Source(paper="", table="", citation=""),
        columns=tuple(_renamed(column) for _, column in by_protocol),
        rows=(),
        published={},
    )
    drawing = store.draw(of, at)
    ordered = replace(drawing, rows=tuple(sorted(drawing.rows, key=_by_best)))
    warning = "" if at.paper else ": not comparable with published numbers"
    heading = f"Measured at suite {at.name} ({at.backbone}){warning}"
    return Board(at, ordered, replace(layout.blocks(ordered)[0], heading=heading))


def _renamed(column: ColumnSpec) -> ColumnSpec:
    """The column under its protocol and variant."""
    metric, place = definitions.metric_and_place(column.reads)
    variant = "" if column.variant == "standard" else f", {column.variant}"
    name = {
        "key": f"{column.protocol}/{column.variant}/{column.reads}",
        "group": f"{definitions.load(column.protocol).title}{variant} ({metric})",
        "title": place,
    }
    return column.model_copy(update=name)


def _by_best(row: Row) -> tuple[bool, bool, float]:
    """References first, then by the best cell of the first protocol that has one, then what has no number."""
    for _, cells in groupby(row.cells, key=lambda cell: cell.protocol):
        values = [cell.value for cell in cells if cell.value is not None]
        if values:
            return False, not row.reference, -max(values)
    return True, not row.reference, 0.0
