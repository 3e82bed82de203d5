"""Tests between the rows of a table, from their stored evidence. No torch.

Two rows of a column are compared over their seeds and over the test examples that they share
(:func:`bench.metrics.compare.p_below`). What a row is under resamples of the examples, and what came of a column, are
kept under the sha256 of the evidence, so a table without new results reads no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.metrics.compare import RESAMPLES, Measurement, not_below_any, p_below, resampled_counts
from bench.metrics.intervals import of_all
from bench.protocols import definitions
from bench.report.cell import Cell
from bench.report.kept import Kept
from bench.verify import evidence

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
"""Of the family of all ordered pairs of a column."""

_VERSION = 1
"""Bumped when the same evidence would come out otherwise."""


class UntestedError(BenchError):
    """The rows of a column cannot be tested; it says why."""


@dataclass(frozen=True)
class Tested:
    """One row in one column."""

    title: str
    cell: Cell
    """Measured."""
    reads: str
    """The results' column."""

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return self.cell.value or 0.0

    @property
    def key(self) -> list[Any]:
        """What its number depends on."""
        return [self.cell.protocol, self.cell.digest, self.reads, self.cell.evidence]


class Tests:
    """The tests between rows; each is made once.

    Args:
        results: as :func:`bench.results.load` gives them: they name the evidence.
        folder: what came out is kept here; None: nowhere.
    """

    def __init__(self, results: pd.DataFrame, folder: Path | None = None) -> None:
        self.kept = Kept(folder)
        named = results[["evidence_sha256", "evidence"]].dropna().drop_duplicates("evidence_sha256")
        self._files = dict(zip(named["evidence_sha256"], named["evidence"], strict=True))
        self._counts: dict[int, list[NDArray[np.float32]]] = {}

    def not_below_any(self, rows: Sequence[Tested]) -> list[bool]:
        """For each row of a column, whether no other is significantly above it: Holm over all pairs at ``LEVEL``.

        Raises:
            UntestedError: evidence is missing, or is not that of its result; the protocol names no statistic.
        """
        found = self.kept.array(
            ["not below any", _VERSION, LEVEL, RESAMPLES, [row.key for row in rows]],
            lambda: [float(one) for one in not_below_any(self._measurements(rows), LEVEL)],
        )
        return [bool(one) for one in found]

    def p_below(self, below: Tested, above: Sequence[Tested]) -> list[float]:
        """P-values, not corrected, against "it is not below": of one row and each of others in the same column.

        Raises:
            UntestedError: as :meth:`not_below_any`.
        """

        def compute() -> list[float]:
            first, *rest = self._measurements([below, *above])
            return [p_below(first, one) for one in rest]

        key = ["below", _VERSION, RESAMPLES, below.key, [row.key for row in above]]
        return [float(p) for p in self.kept.array(key, compute)]

    def _measurements(self, rows: Sequence[Tested]) -> list[Measurement]:
        lacking = [row.title for row in rows if not all(self._file(sha256) for sha256 in row.cell.evidence)]
        if lacking:
            raise UntestedError(f"no evidence here of {', '.join(dict.fromkeys(lacking))}")
        if len({row.cell.n for row in rows}) > 1:
            raise UntestedError("the rows do not share their test examples")
        return [self._measurement(row) for row in rows]

    def _measurement(self, row: Tested) -> Measurement:
        values = tuple(row.cell.seeds.values())
        resampled = self.kept.array(
            ["resampled", _VERSION, RESAMPLES, row.key],
            lambda: np.mean(
                [self._resampled(row, *one) for one in zip(row.cell.evidence, values, strict=True)], axis=0
            ),
        )
        return Measurement(values, resampled, row.cell.n or 0)

    def _resampled(self, row: Tested, sha256: str, value: float) -> NDArray[np.float64]:
        """(R,): the ``value`` of one seed under each resample of the test examples."""
        examples = row.cell.n or 0
        statistic_of = definitions.load(row.cell.protocol).statistic
        if statistic_of is None:
            raise UntestedError(f"the protocol {row.cell.protocol} names no statistic")
        if examples not in self._counts:
            self._counts.clear()
            self._counts[examples] = resampled_counts(examples)
        try:
            statistic = statistic_of(evidence.read(Path(self._files[sha256]), sha256), row.reads)
            once = of_all(statistic, examples)
            found = np.concatenate([statistic(counts) for counts in self._counts[examples]])
        except BenchError as error:
            raise UntestedError(f"{row.title}: {error.what}") from error
        except Exception as error:  # evidence may hold anything
            raise UntestedError(f"the evidence of {row.title} gives no {row.reads} ({error!r})") from error
        if not math.isclose(once, value, rel_tol=1e-6, abs_tol=1e-6):
            raise UntestedError(f"the evidence of {row.title} gives {once:g} for {row.reads}, the result {value:g}")
        if not np.isfinite(found).all():
            raise UntestedError(f"{row.reads} of {row.title} does not exist under some resamples")
        return found

    def _file(self, sha256: str) -> bool:
        return sha256 in self._files and Path(self._files[sha256]).is_file()
