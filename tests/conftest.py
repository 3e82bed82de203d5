"""What all tests share: one thread, no network, real images only where BENCH_DATA says."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

SKELETONS = Path(__file__).parent / "skeletons" / "src"


def pytest_terminal_summary(terminalreporter):
    """Why tests were skipped, and so what would have to be there: one line a reason."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, tests in sorted(reasons.items()):
        terminalreporter.write_line(f"{tests} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def bench_data() -> Path:
    """The folder of real data; skips where there is none."""
    root = os.environ.get("BENCH_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("BENCH_DATA names no folder of real images")
    return Path(root)


@pytest.fixture
def skeletons(monkeypatch):
    """Four methods outside the package, found by their entry points; also in subprocesses."""
    from bench import registry

    monkeypatch.syspath_prepend(str(SKELETONS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SKELETONS), os.environ.get("PYTHONPATH", "")]).rstrip(":"))
    registry.refresh()
    yield ("moving-targets", "two-optimisers", "two-halves", "outsider")
    registry.refresh()


@pytest.fixture(autouse=True)
def _quiet_home(monkeypatch, tmp_path_factory):
    """Nothing is read from or written to the user's own folders."""
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path_factory.mktemp("runs")))
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
