"""Where things live: declared tables and profiles, runs, data, cache. Imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent


def declared(name: str) -> Path:
    """``tables`` or ``slurm``: a checkout's own folder, else the copy that the wheel carries."""
    checkout = _PACKAGE.parent / name
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / "_declared" / name


def runs_root(option: str | Path | None = None) -> Path:
    """``--runs``, else ``BENCH_RUNS``, else ``./runs``."""
    return Path(option or os.environ.get("BENCH_RUNS") or "runs").expanduser().absolute()


def data_root(option: str | Path | None = None) -> Path:
    """``--data``, else ``BENCH_DATA``, else ``~/.local/share/pretext-bench``. Nothing is written there but by
    ``bench data prepare``."""
    default = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "pretext-bench"
    return Path(option or os.environ.get("BENCH_DATA") or default).expanduser().absolute()


def cache_root(runs: Path) -> Path:
    """``BENCH_CACHE``, else ``<runs>/.cache``: indices, packed stores, proposals."""
    return Path(os.environ.get("BENCH_CACHE") or runs / ".cache").expanduser().absolute()
