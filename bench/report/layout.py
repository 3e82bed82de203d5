"""A drawing as blocks of lines: which numbers stand side by side, under which headings. The same for all formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.report.cell import Cell
from bench.report.spec import ColumnSpec, Published
from bench.report.table import MARK_OF_STATUS, NOT_PUBLISHED, SYNTHETIC, Drawing, Identity, Row

WORD = {"not run": "not run", "running": "running", "failed": "failed", "not implemented": "not impl."}
"""What stands in a cell without a number."""

_PAIRED = 6
"""Columns of a table that is still read easily, and fits a page, with two numbers in each."""

Entry = Cell | Published | None


@dataclass(frozen=True)
class Line:
    """One row of a block."""

    label: str
    row: Row
    entries: tuple[Entry, ...]

    @property
    def alike(self) -> Cell | None:
        """The cell that stands for all where none has a number and all are in one state for one reason."""
        cells = [entry for entry in self.entries if isinstance(entry, Cell)]
        one = len(cells) == len(self.entries) and len({(c.state, c.reason) for c in cells}) == 1
        return cells[0] if one and cells[0].value is None else None


@dataclass(frozen=True)
class Block:
    """One rectangle of numbers."""

    kind: str
    """``measured``, ``published`` or ``both``."""
    heading: str
    groups: tuple[tuple[str, int], ...]
    """(heading, how many columns it spans); empty: none."""
    corner: str
    """Over the labels."""
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    over: tuple[tuple[str, int], ...] = ()
    """Headings over those of ``groups``, spanning columns likewise; empty: none."""

    @property
    def flat(self) -> tuple[str, ...]:
        """The corner and the heads in one line, for formats without spans."""
        if len(self.groups) == 1 and self.kind != "both":
            return (self.groups[0][0], *self.heads)
        levels = [_by_column(level) for level in (self.over, self.groups) if level]
        return (self.corner, *(" ".join(filter(None, words)) for words in zip(*levels, self.heads, strict=True)))


def blocks(drawing: Drawing) -> list[Block]:
    """Side by side at the paper's own scale, unless the table is too wide; else what was measured, then what was
    published."""
    source = drawing.source
    paper = ", ".join(filter(None, [source.paper, source.arxiv and f"arXiv {source.arxiv}", source.table]))
    at = f"at suite {drawing.suite} ({' on '.join(filter(None, [drawing.backbone, drawing.dataset]))})"
    groups = _groups(drawing.columns)
    titles = _titles(drawing)
    if drawing.paper and len(drawing.columns) <= _PAIRED:
        alone = len(groups) == 1
        return [
            Block(
                "both",
                f"Published ({paper}) and measured {at}",
                tuple((title, 2) for title in titles),
                groups[0][0] if alone else "Method",
                ("publ.", "meas.") * len(titles),
                tuple(Line(_marked(row.label, row), row, _pairs(row)) for row in drawing.rows),
                () if alone else tuple((group, 2 * span) for group, span in groups),
            )
        ]
    warning = "" if drawing.paper else ": not comparable with published numbers"
    measured = tuple(Line(_marked(row.title, row), row, row.cells) for row in _once(drawing.rows))
    published = tuple(Line(row.label, row, row.numbers) for row in drawing.rows if row.published)
    return [
        Block("measured", f"Measured {at}{warning}", groups, "Method", titles, measured),
        Block("published", f"Published: {paper}", groups, "Method", titles, published),
    ]


def value(entry: Entry) -> str:
    """The number of an entry, or the word for its state."""
    if entry is None:
        return NOT_PUBLISHED
    if isinstance(entry, Published):
        return entry.text
    return WORD[entry.state] if entry.value is None else f"{entry.value:z.1f}"


def spread(entry: Entry) -> str:
    """``± 0.4`` over seeds, ``[26.7, 30.5]`` for one seed, or nothing."""
    if not isinstance(entry, Cell) or entry.value is None:
        return ""
    return f"[{entry.low:z.1f}, {entry.high:z.1f}]" if entry.sd is None else f"± {entry.sd:.1f}"


def marks(entry: Entry) -> str:
    """The marks behind the number."""
    if entry is None:
        return ""
    return entry.marks if isinstance(entry, Cell) else MARK_OF_STATUS[entry.status]


def facts(cell: Cell) -> dict[str, str]:
    """Everything there is to know of a measured cell, in words."""
    number = cell.value is not None
    told = {
        "state": cell.state + (f" ({cell.reason})" if cell.reason else ""),
        "value": f"{cell.value:.2f} {cell.unit}" if number else "",
        "interval": f"{cell.low:.2f} to {cell.high:.2f}" if number else "",
        "interval by": cell.interval,
        "by seed": ", ".join(f"{seed}: {one:.2f}" for seed, one in cell.seeds.items()),
        "chance": f"{cell.chance:.2f}" if cell.chance is not None else "",
        "test examples": str(cell.n or ""),
        "protocol": f"{cell.protocol}, {cell.variant}" + (f", {cell.digest}" if cell.digest else ""),
        "command": cell.command,
    }
    return {term: text for term, text in told.items() if text}


def identity(one: Identity) -> str:
    """What identifies a protocol variant, after its name and digest."""
    seeds = ", ".join(map(str, one.seeds)) or "none measured yet"
    return f"{one.data}; {one.preprocessing}; selection: {one.selection}; seeds: {seeds}"


def command(drawing: Drawing) -> str:
    """The command of any cell, METHOD and SEED to be filled in, as published VARIANT and BACKBONE too; empty where no
    command computes one."""
    known = {one.protocol for one in drawing.protocols}
    protocols = "|".join(dict.fromkeys(column.protocol for column in drawing.columns if column.protocol in known))
    if not protocols:
        return ""
    own = " --variant VARIANT --backbone BACKBONE" if drawing.as_published else ""
    return f"bench run --suite {drawing.suite} --method METHOD --protocol {protocols}{own} --seed SEED"


def _once(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows without those that repeat another one's cells: papers print a method twice where they vary what we do
    not, such as its version."""
    seen: list[tuple[Any, ...]] = []
    for row in rows:
        key = (row.title, row.method, row.options, row.backbone, row.pretraining_data, row.cells)
        if key not in seen:
            seen.append(key)
            yield row


def _marked(name: str, row: Row) -> str:
    """The name of a row whose measured numbers are shown, with its mark."""
    return f"{name} {SYNTHETIC}" if row.synthetic_motion else name


def _pairs(row: Row) -> tuple[Entry, ...]:
    return tuple(entry for pair in zip(row.numbers, row.cells, strict=True) for entry in pair)


def _titles(drawing: Drawing) -> tuple[str, ...]:
    """The title of each column, with the unit where the columns have different ones."""
    mixed = len(set(drawing.units)) > 1
    return tuple(
        column.title + (f" ({unit})" if mixed else "")
        for column, unit in zip(drawing.columns, drawing.units, strict=True)
    )


def _by_column(level: Sequence[tuple[str, int]]) -> list[str]:
    """A heading a column."""
    return [heading for heading, span in level for _ in range(span)]


def _groups(columns: Sequence[ColumnSpec]) -> tuple[tuple[str, int], ...]:
    runs = [(group, len(list(run))) for group, run in groupby(column.group for column in columns)]
    return tuple(runs) if any(group for group, _ in runs) else ()
