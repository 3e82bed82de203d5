"""The layer at which a row is best: chosen on the held-out slice, never by the number itself. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import printable
from bench.protocols.definitions import metric_and_place
from bench.report.cell import Cell
from bench.report.spec import ColumnSpec


def groups(columns: Sequence[ColumnSpec]) -> list[tuple[str, list[int]]]:
    """(what to call it, indices of the columns) of every protocol and metric that a table shows at several layers."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for at, column in enumerate(columns):
        found.setdefault((column.protocol, column.variant, metric_and_place(column.reads)[0]), []).append(at)
    several = [own for own in found.values() if len(own) > 1]
    names = [f"best layer, {printable(columns[own[0]].group)}" if len(several) > 1 else "best layer" for own in several]
    return list(zip(names, several, strict=True))


def chosen(cells: Sequence[Cell], at: Sequence[int]) -> int | None:
    """Which of the columns ``at`` is a row's best; None: none is measured, or one has no held-out score."""
    measured = [i for i in at if cells[i].state == "measured"]
    scores = [score for i in measured if (score := cells[i].heldout) is not None]
    if not measured or len(scores) < len(measured):
        return None
    return measured[scores.index(max(scores))]
