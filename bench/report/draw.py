"""From names to a drawn table: reads the suite, the results and the states of runs, and draws. No torch."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench import results, suite
from bench.launch import state
from bench.report import spec, table
from bench.report.render import render


def drawing(
    name: str, suite_name: str, runs: Path, *, as_published: bool = False, seeds: list[int] | None = None
) -> table.Drawing:
    """The table at that suite, from everything that is on disk now.

    Raises:
        BenchError: an unknown table or suite, or a result that cannot be read.
    """
    return table.draw(
        spec.load(name),
        suite.load(suite_name),
        results.load(runs),
        state.frame(runs),
        as_published=as_published,
        seeds=seeds,
    )


def for_screen(drawn: table.Drawing) -> str:
    """The table as wide as the terminal, in colour where the terminal has it."""
    return render(drawn, "terminal", width=shutil.get_terminal_size((100, 24)).columns, colour=sys.stdout.isatty())
