"""Every method against the stronger of the baselines that learn nothing: Random, or Random rescaled. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.errors import BenchError
from bench.metrics.compare import holm
from bench.report.compare import Tested, Tests
from bench.report.ranking import p_value
from bench.report.render import markdown, padded_table
from bench.report.spec import column_names
from bench.report.table import Drawing, tested, unranked


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
    of the column."""


def against_baseline(drawing: Drawing, tests: Tests) -> list[Comparison]:
    """Every measured pretext row of a drawn table, column after column.

    The stronger baseline of a column is the one with the better score on the held-out slice. A protocol that holds
    nothing out leaves the choice open; then each row is tested against both, and the larger p-value counts.

    Raises:
        BenchError: the table is drawn as published, each row under a variant of its own.
        UntestedError: evidence is missing, or is not that of its result; the protocol names no statistic.
    """
    if drawing.as_published:
        raise BenchError("rows under different variants are not compared", mend="draw without --as-published")
    kinds = [unranked(row) for row in drawing.rows]
    baselines = [row for row, kind in zip(drawing.rows, kinds, strict=True) if kind == "baseline"]
    others = [row for row, kind in zip(drawing.rows, kinds, strict=True) if kind in ("", "synthetic motion")]
    found: list[Comparison] = []
    for at, (name, column) in enumerate(zip(column_names(drawing.columns), drawing.columns, strict=True)):
        rows, bases = (list(tested(those, at, column).values()) for those in (others, baselines))
        found += _in_column(name, rows, _stronger(bases), tests)
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
    return "".join(f"{line}\n" for line in padded_table(rows))


def _in_column(name: str, rows: Sequence[Tested], baselines: Sequence[Tested], tests: Tests) -> list[Comparison]:
    if not rows or not baselines:
        return []
    by_baseline = [tests.p_below(baseline, rows) for baseline in baselines]
    harder = [max(range(len(baselines)), key=lambda b, at=at: by_baseline[b][at]) for at in range(len(rows))]  # type: ignore[misc]
    adjusted = holm([by_baseline[b][at] for at, b in enumerate(harder)])
    return [
        Comparison(row.title, name, baselines[b].title, row.value - baselines[b].value, float(p))
        for row, b, p in zip(rows, harder, adjusted, strict=True)
    ]


def _stronger(baselines: Sequence[Tested]) -> list[Tested]:
    """By the held-out slice; all of them where it does not say."""
    scores = [one.cell.heldout for one in baselines if one.cell.heldout is not None]
    if not scores or len(scores) < len(baselines):
        return list(baselines)
    return [baselines[scores.index(max(scores))]]
