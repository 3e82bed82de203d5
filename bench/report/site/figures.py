"""The figures of a drawn table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from scipy.stats import rankdata

from bench.errors import printable
from bench.report import plots, ranking
from bench.report.cell import Cell
from bench.report.site.frame import slug
from bench.report.spec import Published, column_names
from bench.report.table import Drawing, Row, unranked

_FEWEST = 3
"""Columns that make a curve."""


def across(drawing: Drawing, *, measured: bool) -> Iterator[plots.Figure]:
    """Values over the columns of one protocol and metric, such as layers, where there are three or more."""
    kinds = [(column.protocol, column.group, column.reads.partition("@")[0]) for column in drawing.columns]
    names = column_names(drawing.columns)
    for number, (kind, run) in enumerate(groupby(range(len(kinds)), key=kinds.__getitem__)):
        at = list(run)
        curves = [curve for row in drawing.rows if len((curve := _curve(row, at, measured)).x) > 1]
        if len(at) < _FEWEST or not curves:
            continue
        _, group, metric = kind
        caption = f"{drawing.title}: {group or metric}. Dashed: reference rows."
        if measured:
            caption += " Bands: 95 % intervals."
        grey = sum(not curve.reference for curve in curves) - plots.COLOURED
        if grey > 0:
            caption += f" Grey: the {grey} rows below the first {plots.COLOURED}."
        yield plots.across(
            f"{slug(drawing.table)}.{slug(drawing.suite)}.{'measured' if measured else 'published'}-{number}",
            f"Measured, suite {drawing.suite}" if measured else f"Published: {drawing.source.paper}",
            caption,
            tuple(names[i] for i in at),
            drawing.units[at[0]],
            tuple(curves),
        )


def against(drawing: Drawing) -> Iterator[plots.Figure]:
    """What was measured over what was published, at the paper's own scale."""
    names = column_names(drawing.columns)
    points = [
        plots.Point(row.label, printable(name), number.value, cell.value, cell.low, cell.high)
        for row in drawing.rows
        for name, number, cell in zip(names, row.numbers, row.cells, strict=True)
        if number is not None and cell.value is not None
    ]
    if points:
        yield plots.against(
            f"{slug(drawing.table)}.{slug(drawing.suite)}.against",
            "Published against measured",
            f"{drawing.title}. On the dashed line both are the same. Bars: 95 % intervals of the measured numbers.",
            ("published", "measured"),
            tuple(points),
            ranks=False,
        )


def ranks(drawing: Drawing) -> Iterator[plots.Figure]:
    """Ranks in place of values, at a suite whose values do not compare with the paper's: at the best layer of each
    method where the table shows several, else in each column."""
    rows = [row for row in drawing.rows if not unranked(row)]
    places = [(of, own) for of, own in ranking.ranked(rows, drawing.columns) if len(own) >= ranking.FEWEST]
    best = [(of, own) for of, own in places if of.startswith("best layer")]
    points = []
    for of, own in best or places:
        published, measured = (rankdata([-pair[k] for _, pair in own]) for k in (0, 1))
        points += [
            plots.Point(row.title, of, float(x), float(y))
            for (row, _), x, y in zip(own, published, measured, strict=True)
        ]
    if points:
        where = "at the best layer of each, chosen on held-out images" if best else "in each column"
        yield plots.against(
            f"{slug(drawing.table)}.{slug(drawing.suite)}.ranks",
            f"Published against measured ranks, suite {drawing.suite}",
            f"{drawing.title}. Ranks {where}, among the pretext tasks that have both numbers; 1 is the best. On the "
            "dashed line both are the same.",
            ("published rank", "measured rank"),
            tuple(points),
            ranks=True,
        )


def _curve(row: Row, at: Sequence[int], measured: bool) -> plots.Curve:
    """A row over those of its columns that have a number."""
    places: list[float] = []
    values: list[float] = []
    spans: list[tuple[float, float]] = []
    for x, i in enumerate(at):
        entry: Cell | Published | None = row.cells[i] if measured else row.numbers[i]
        if entry is not None and entry.value is not None:
            places.append(float(x))
            values.append(entry.value)
            if isinstance(entry, Cell) and entry.low is not None and entry.high is not None:
                spans.append((entry.low, entry.high))
    low, high = zip(*spans, strict=True) if spans else ((), ())
    label = row.title if measured else row.label
    return plots.Curve(label, tuple(places), tuple(values), low, high, reference=row.reference)
