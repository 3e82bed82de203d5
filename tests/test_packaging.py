"""What the wheel carries, and that a package without a checkout finds it."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench import __version__

ROOT = Path(__file__).parents[1]
CONTRACT = ("tests/methods/test_contract.py", "tests/toydata.py")
SOURCES = (
    "bench", "tables", "slurm", *CONTRACT,
    "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources to build in, with a piece of evidence beside a result."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    results = folder / "tables" / "results" / "demo"
    results.mkdir(parents=True, exist_ok=True)
    (results / "s0.json").write_text("{}")
    (results / "s0.npz").write_bytes(b"evidence")
    (folder / "slurm" / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "slurm" / "profiles" / "test.toml").write_text("")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(pip, cwd=checkout, check=True)
    (made,) = (checkout / "dist").glob("*.whl")
    return made


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_wheel_carries_the_package_and_what_is_declared(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name == f"pretext_bench-{__version__}-py3-none-any.whl"
    package = {f"bench/{name}" for name in files(checkout / "bench")}
    tables = {f"bench/_declared/tables/{name}" for name in files(checkout / "tables") if not name.endswith(".npz")}
    profiles = {f"bench/_declared/slurm/profiles/{name}" for name in files(checkout / "slurm" / "profiles")}
    expected = package | tables | profiles | {f"bench/_declared/{name}" for name in ("constraints.txt", *CONTRACT)}
    assert {name for name in names if name.startswith("bench/")} == expected
    assert {name.partition("/")[0] for name in names} == {"bench", f"pretext_bench-{__version__}.dist-info"}


def test_installed_wheel_finds_its_tables_away_from_any_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = """
import bench, sys
from bench.paths import declared
assert bench.__file__.startswith(sys.argv[1]), bench.__file__
assert (declared("tables") / "results" / "demo" / "s0.json").is_file()
assert declared("constraints.txt").is_file()
"""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code, str(site)], cwd=tmp_path, env=environment, check=True)


def test_constraints_pin_versions_and_name_no_place() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0].lower() for line in lines]
    assert all(line.count("==") == 1 and " " not in line and "/" not in line for line in lines)
    assert len(set(names)) == len(names)
    assert {"torch", "torchvision", "opencv-python", "opencv-contrib-python-headless"} <= set(names)
    assert not {"detectron2", "sal-detectron2", "pretext-bench", "pip"} & set(names)


def test_every_import_is_a_declared_dependency() -> None:
    """What the engines' adapters import may come from the extras; all else is installed with the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {Requirement(text).name for text in project["dependencies"]}
    extras = {Requirement(text).name for texts in project["optional-dependencies"].values() for text in texts}
    engines = {*core, *extras, "detectron2"}
    brings = importlib.metadata.packages_distributions()
    for file in (ROOT / "bench").rglob("*.py"):
        declared = engines if file.parent.name == "engines" else core
        for name in imports(file) - sys.stdlib_module_names - {"bench"}:
            assert {canonicalize_name(found) for found in brings.get(name, ())} & declared, (
                f"{file.name} imports {name}"
            )


def imports(file: Path) -> set[str]:
    """The top-level names of everything that a file imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("sys.version_info", "Python 3.11 or newer is needed: install it, or name one: make PYTHON="),
        ("ensurepip", "lacks venv: install it"),
    ],
)
def test_set_up_says_in_one_line_what_python_lacks(lacks: str, said: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{lacks}*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / ".venv").exists()
