"""Every method against the stronger of the baselines that learn nothing: Random, or Random rescaled. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.errors import BenchError
from bench.metrics.compare import holm
from bench.report import best_layer
from bench.report.compare import Tested, Tests
from bench.report.ranking import p_value
from bench.report.render import markdown, padded_table
from bench.report.spec import ColumnSpec, column_names
from bench.report.table import Drawing, Row, tested, unranked


@dataclass(frozen=True)
class Comparison:
    """One row in one column against the stronger baseline."""

    row: str
    column: str
    baseline: str
    difference: float
    """The row's value less the baseline's, in the column's unit."""
    p: float
    """One-sided, against "the baseline is not below the row": small where the row is surely above; Holm over the rows
    of the column, those of the table's family and all others apart."""
    family: bool
    """Whether the row is of the family."""


def against_baseline(drawing: Drawing, tests: Tests) -> list[Comparison]:
    """Every measured pretext row of a drawn table, column after column, then at the layer where each row is best.

    The stronger baseline of a column is the one with the better score on the held-out slice, which also chooses the
    layers. A protocol that holds nothing out leaves the choice open; then each row is tested against both baselines,
    and the larger p-value counts.

    Raises:
        BenchError: the table is drawn as published, each row under a variant of its own.
        UntestedError: evidence is missing, or is not that of its result; the protocol names no statistic.
    """
    if drawing.as_published:
        raise BenchError("rows under different variants are not compared", mend="draw without --as-published")
    kinds = [unranked(row) for row in drawing.rows]
    baselines = [row for row, kind in zip(drawing.rows, kinds, strict=True) if kind == "baseline"]
    others = [row for row, kind in zip(drawing.rows, kinds, strict=True) if kind in ("", "synthetic motion")]
    places = [(name, [at]) for at, name in enumerate(column_names(drawing.columns))]
    found: list[Comparison] = []
    for name, at in [*places, *best_layer.groups(drawing.columns)]:
        bases = _stronger([one for _, one in _measured(baselines, at, drawing.columns)])
        rows = [(row.method in drawing.family, one) for row, one in _measured(others, at, drawing.columns)]
        found += _in_column(name, rows, bases, tests)
    return found


def wide(found: Sequence[Comparison]) -> list[dict[str, str]]:
    """For people: one record a row, its columns by name; which baseline it is stands in a record of its own, or in the
    cells where it is not the same for all."""
    names = {one.column: {other.baseline for other in found if other.column == one.column} for one in found}
    lines: dict[str, dict[str, str]] = {}
    for one in found:
        own = f", {one.baseline}" if len(names[one.column]) > 1 else ""
        text = f"{one.difference:+.1f} ({p_value(one.p)}{own})"
        lines.setdefault(one.row, {"row": one.row})[one.column] = text
    first = {column: of.copy().pop() for column, of in names.items() if len(of) == 1}
    records = [{"row": "stronger baseline", **first}, *lines.values()]
    return [{"row": record["row"], **{column: record.get(column, "") for column in names}} for record in records]


def render(found: Sequence[Comparison], fmt: str) -> str:
    """Every comparison as JSON, or :func:`wide` as a table of Markdown, for the terminal without its escapes.

    Raises:
        BenchError: another format; nothing to compare.
    """
    if not found:
        raise BenchError("no method and baseline are measured alike", mend="`bench reproduce` computes them")
    if fmt == "json":
        return json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False) + "\n"
    if fmt not in ("terminal", "markdown"):
        raise BenchError(f"a comparison is not drawn as {fmt}", mend="terminal, markdown or json")
    records = wide(found)
    rows = [list(records[0]), *(list(record.values()) for record in records)]
    if fmt == "markdown":
        rows = [[markdown(text) for text in row] for row in rows]
    return "".join(f"{line}\n" for line in (*padded_table(rows), "", _how(found)))


def _how(found: Sequence[Comparison]) -> str:
    """What the numbers are, in a sentence."""
    family = list(dict.fromkeys(one.row for one in found if one.family))
    apart = (
        f" The family of {', '.join(map(markdown, family))} and all other rows are corrected apart." if family else ""
    )
    return (
        "Each row less the stronger baseline: the better one on the held-out slice, which also chose the best layers; "
        "where nothing is held out, the one that gives the larger p. One-sided p after Holm's correction over the rows "
        f"of the column.{apart}"
    )


def _measured(rows: Sequence[Row], at: Sequence[int], columns: Sequence[ColumnSpec]) -> list[tuple[Row, Tested]]:
    """Each row in one column, or in that of several at which it is best."""
    found: dict[tuple[str, ...], tuple[Row, Tested]] = {}
    for row in rows:
        best = at[0] if len(at) == 1 else best_layer.chosen(row.cells, at)
        if best is not None:
            for key, one in tested([row], best, columns[best]).items():
                found.setdefault(key, (row, one))
    return list(found.values())


def _in_column(
    name: str, rows: Sequence[tuple[bool, Tested]], baselines: Sequence[Tested], tests: Tests
) -> list[Comparison]:
    """``rows`` with whether they are of the family."""
    if not rows or not baselines:
        return []
    by_baseline = np.array([tests.p_below(baseline, [one for _, one in rows]) for baseline in baselines])
    harder, raw = by_baseline.argmax(0), by_baseline.max(0)
    ofs, adjusted = np.array([of for of, _ in rows]), np.empty(len(rows))
    for kind in (True, False):
        adjusted[ofs == kind] = holm(raw[ofs == kind])
    return [
        Comparison(one.title, name, baselines[b].title, one.value - baselines[b].value, float(p), of)
        for (of, one), b, p in zip(rows, harder, adjusted, strict=True)
    ]


def _stronger(baselines: Sequence[Tested]) -> list[Tested]:
    """By the held-out slice; all of them where it does not say."""
    scores = [one.cell.heldout for one in baselines if one.cell.heldout is not None]
    if not scores or len(scores) < len(baselines):
        return list(baselines)
    return [baselines[scores.index(max(scores))]]
