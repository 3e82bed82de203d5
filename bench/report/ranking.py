"""Whether what was measured ranks methods as the papers did. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.errors import printable
from bench.metrics.rank_correlation import FEWEST, Agreement, agreement
from bench.report import best_layer
from bench.report.kept import Kept
from bench.report.spec import ColumnSpec, column_names

if TYPE_CHECKING:
    from bench.report.table import Row

Pair = tuple[float, float]
"""Published, measured."""

_VERSION = 1
"""Bumped when the same numbers would come out otherwise."""


@dataclass(frozen=True)
class Ranking:
    """How published and measured numbers of the same rows agree."""

    of: str
    """A column's name, or the best layer."""
    agreement: Agreement


def rankings(rows: Sequence[Row], columns: Sequence[ColumnSpec], kept: Kept) -> Iterator[Ranking]:
    """The agreement of each column, then that at each row's best layer; nothing of fewer than five rows.

    Args:
        rows: those that take part in rankings. Where several were printed for what is measured once, the first counts.
    """
    for of, own in ranked(rows, columns):
        both = [pair for _, pair in own]
        if len(both) >= FEWEST:
            found = kept.array(["agreement", _VERSION, both], partial(_numbers, both))
            if found.size:
                tau, tau_p, rho, rho_p, n, exact = found.tolist()
                yield Ranking(of, Agreement(tau, tau_p, rho, rho_p, int(n), bool(exact)))


def ranked(rows: Sequence[Row], columns: Sequence[ColumnSpec]) -> Iterator[tuple[str, list[tuple[Row, Pair]]]]:
    """(a column's name, or the best layer; each row that has both numbers, with them)."""
    for at, name in enumerate(column_names(columns)):
        yield printable(name), _pairs(rows, partial(_at, at=at))
    yield from _best_layers(rows, columns)


def sentence(found: Sequence[Ranking]) -> str:
    """What is printed under a table; empty where there is nothing to say."""
    if not found:
        return ""
    parts = [
        f"{one.of} {one.agreement.tau:.2f} ({p_value(one.agreement.tau_p)}) and {one.agreement.rho:.2f} "
        f"({p_value(one.agreement.rho_p)}), n = {one.agreement.n}"
        for one in found
    ]
    over = "all orders" if all(one.agreement.exact for one in found) else "all orders, or 200,000 of them for n > 9"
    return (
        "ranks of the pretext rows, published against measured, by Kendall's tau-b and Spearman's rho "
        f"(one-sided p over {over}): {'; '.join(parts)}"
    )


def _pairs(rows: Sequence[Row], pair_of: Callable[[Row], Pair | None]) -> list[tuple[Row, Pair]]:
    """One pair for each of the rows that are measured apart."""
    found: dict[Any, tuple[Row, Pair]] = {}
    for row in rows:
        if (pair := pair_of(row)) is not None:
            found.setdefault(row.key, (row, pair))
    return list(found.values())


def _at(row: Row, at: int) -> Pair | None:
    number, cell = row.numbers[at], row.cells[at]
    if number is None or cell.value is None or cell.state != "measured":
        return None
    return number.value, cell.value


def _best_layers(rows: Sequence[Row], columns: Sequence[ColumnSpec]) -> Iterator[tuple[str, list[tuple[Row, Pair]]]]:
    """Published best, measured best. Papers print no held-out slice, so of theirs the largest number counts."""
    for named, own in best_layer.groups(columns):
        yield named, _pairs(rows, partial(_best, at=own))


def _best(row: Row, at: Sequence[int]) -> Pair | None:
    printed = [number.value for i in at if (number := row.numbers[i])]
    best = best_layer.chosen(row.cells, at)
    value = None if best is None else row.cells[best].value
    return (max(printed), value) if printed and value is not None else None


def _numbers(pairs: Sequence[Pair]) -> tuple[float, ...]:
    found = agreement(*zip(*pairs, strict=True))
    return astuple(found) if found else ()


def p_value(p: float) -> str:
    """``p = 0.042``."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
