"""Commands of Slurm that say what a test wants."""

import os

import pytest


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function: from now on the command of this name is this shell script."""
    where = tmp_path / "bin"
    where.mkdir()
    monkeypatch.setenv("PATH", f"{where}:{os.environ['PATH']}")

    def put(name, script):
        (where / name).write_text(f"#!/bin/sh\n{script}\n")
        (where / name).chmod(0o755)

    return put
