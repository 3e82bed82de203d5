"""Runs the command line on the smoke suite, in this process or another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOUR = "random,random-rescaled,supervised,rotation"


def bench(*arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """``bench ...`` in a process of its own."""
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    if check and done.returncode:
        raise AssertionError(f"{command} exited {done.returncode}: {done.stderr[-3000:]}")
    return done


def reproduce(runs: Path, *more: object, methods: str = FOUR, **options: object) -> subprocess.CompletedProcess[str]:
    """``bench reproduce imagenet-linear --suite smoke``."""
    return bench(
        "reproduce", "imagenet-linear", "--suite", "smoke", "--runs", runs, "--methods", methods, *more, **options
    )
