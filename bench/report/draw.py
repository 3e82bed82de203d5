"""From names to a drawn table: reads the suite, the results and the states of runs, and draws. No torch."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench import results, suite
from bench.launch import state
from bench.paths import cache_root
from bench.report import spec, table
from bench.report.compare import Tests
from bench.report.render import render


class OnDisk:
    """What is on disk now, read once for any number of tables.

    Raises:
        BenchError: a result that cannot be read.
    """

    def __init__(self, runs: Path) -> None:
        self.results, self.states = results.load(runs), state.frame(runs)
        self.tests = Tests(self.results, _tests_folder(runs))

    def drawing(
        self, name: str, suite_name: str, *, as_published: bool = False, seeds: list[int] | None = None
    ) -> table.Drawing:
        """The table at that suite.

        Raises:
            BenchError: an unknown table or suite.
        """
        return table.draw(
            spec.load(name),
            suite.load(suite_name),
            self.results,
            self.states,
            as_published=as_published,
            seeds=seeds,
            tests=self.tests,
        )


def _tests_folder(runs: Path) -> Path | None:
    """Where the outcomes of tests are kept; nowhere without a folder of runs, for drawing makes none."""
    return cache_root(runs) / "tests" if runs.is_dir() else None


def for_screen(drawn: table.Drawing) -> str:
    """The table as wide as the terminal, in colour where the terminal has it."""
    return render(drawn, "terminal", width=shutil.get_terminal_size((100, 24)).columns, colour=sys.stdout.isatty())
