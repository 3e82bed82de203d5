"""A real Slurm for the tests of this folder, started by slurm/dev/dev-slurm.sh and stopped after them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from on_slurm import DAWDLER, Cluster, outcome

from bench.suite import _FOLDER

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes with fake GPUs and accounting; skips where Slurm is not installed."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if any(shutil.which(program, path=path) is None for program in PROGRAMS):
        pytest.skip("Slurm is not installed here: run `make dev-slurm`")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "dawdler.py").write_text(DAWDLER)
    about = outside / "dawdler-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dawdler\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bench.methods]\ndawdler = dawdler:Dawdler\n")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own paths are too long for sockets
    folder.chmod(0o711)  # munge asks for it
    made = Cluster(folder / "c", outside)
    try:
        made.dev("up")
        yield made
    finally:
        made.dev("wipe")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    """smoke, with a pretraining of 60 updates: 9 s at DAWDLE."""
    file = tmp_path_factory.mktemp("suite") / "slow.toml"
    text = (_FOLDER / "smoke.toml").read_text()
    assert "epochs = 1\n" in text
    file.write_text(text.replace("epochs = 1\n", "epochs = 12\n", 1))
    return file


@pytest.fixture(scope="session")
def one(suite):
    """The arguments of a table of one row."""
    return "--suite", suite, "--methods", "dawdler"


@pytest.fixture(scope="session")
def undisturbed(cluster, one, tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    cluster.reproduce(runs, "inline", *one)
    return outcome(cluster, runs, one)


@pytest.fixture(scope="session")
def profile(tmp_path_factory):
    """A function: the file of a profile for the dev cluster, with these lines in its ``[default]``."""

    def make(default: str) -> Path:
        file = tmp_path_factory.mktemp("profile") / "test.toml"
        file.write_text('title = "t"\nlauncher = "slurm"\nsignal_seconds = 30\n[default]\nmemory = "2G"\n' + default)
        return file

    return make
