"""``bench new-method``: the file of a pretext task to start from, checked against the contract of methods.

The scaffold is a small task that works (``bench/methods/_template.py``), with ``FILL IN`` where its author must speak.
Called again, the command leaves the file alone and checks it again. Imports no torch.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import registry
from bench.errors import BenchError
from bench.files import atomic
from bench.paths import declared

MARK = "FILL IN"
CONTRACT = "methods/test_contract.py"

_METHODS = Path(__file__).parent / "methods"
_PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{project}"
version = "0.1.0"
dependencies = ["pretext-bench"]

[project.entry-points."bench.methods"]
{key} = "{package}.{module}:{cls}"

[tool.setuptools.packages.find]
where = ["src"]
"""


@dataclass(frozen=True)
class Scaffold:
    """A method's file."""

    key: str
    file: Path
    folder: Path | None
    """Of the package around it; None: it is one of bench's own."""
    new: bool

    @property
    def module(self) -> str:
        """The file's name without its suffix."""
        return self.file.stem

    @property
    def cls(self) -> str:
        """The class in it."""
        return _class(self.key)


def new_method(key: str, outside: Path | None = None) -> Scaffold:
    """Write the file of a method, unless it is there: in bench's own folder, or in a package of its own.

    Args:
        key: as ``my-task``.
        outside: the folder of the package, made where it is not there.

    Raises:
        BenchError: the key is none, or belongs to another method; bench is installed, so that its own folder is no
            place to write in; a folder that is not empty and has no such method.
    """
    module = key.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", key) or len(key) > 40 or keyword.iskeyword(module):
        mend = "lower-case letters and digits joined by hyphens, such as my-task"
        raise BenchError(f"{key!r} is no key of a method", mend=mend)
    if outside is None:
        file, folder = _METHODS / f"{module}.py", None
        if not file.is_file() and not (_METHODS.parents[1] / "pyproject.toml").is_file():
            mend = "name a folder for a package of your own by --outside"
            raise BenchError("bench is installed, not checked out", where=_METHODS, mend=mend)
    else:
        folder = outside.absolute()
        file = folder / "src" / f"bench_{module}" / f"{module}.py"
    made = Scaffold(key, file, folder, new=not file.is_file())
    if made.new:
        _refuse_taken(made)
        _write(made)
        registry.refresh()
    return made


def _refuse_taken(made: Scaffold) -> None:
    if made.key in registry.names("methods"):
        other = registry.entry("methods", made.key)
        raise BenchError(f"there is a method {made.key!r} already", where=other.file, mend="choose another key")
    if made.folder is not None and made.folder.exists() and (not made.folder.is_dir() or any(made.folder.iterdir())):
        raise BenchError("the folder is not empty", where=made.folder, mend="name a new one")


def _write(made: Scaffold) -> None:
    text = (_METHODS / "_template.py").read_text(encoding="utf-8")
    title = made.key.replace("-", " ").capitalize()
    for old, new in (
        ("Template title", title),
        ("template2026key", f"{MARK} a key of tables/references.bib"),
        ("class Template", f"class {made.cls}"),
    ):
        text = text.replace(old, new)
    files = {made.file: text}
    if made.folder is not None:
        words = {"project": f"bench-{made.key}", "package": made.file.parent.name, "module": made.module}
        files[made.folder / "pyproject.toml"] = _PROJECT.format(key=made.key, cls=made.cls, **words)
        files[made.file.parent / "__init__.py"] = ""
    for path, content in files.items():
        with atomic(path) as file:
            file.write(content)


def missing(made: Scaffold) -> list[str]:
    """What the method still lacks, one line each."""
    lines = made.file.read_text(encoding="utf-8").splitlines()
    found = [
        f"{made.file.name}:{n}: {line[line.index(MARK) :][:60]}" for n, line in enumerate(lines, 1) if MARK in line
    ]
    with _findable(made):
        facts = registry.entry("methods", made.key).facts
    citation = str(facts.get("citation", ""))
    bibliography = declared("tables") / "references.bib"
    if MARK not in citation and f"{{{citation}," not in bibliography.read_text(encoding="utf-8"):
        found.append(f"{citation} is not in tables/references.bib")
    if made.folder is None:
        tests = _METHODS.parents[1] / "tests" / "methods" / f"test_{made.module}.py"
        if not tests.is_file():
            found.append(f"tests/methods/{tests.name}: tests of what is easy to get wrong in this task")
    return found


def check(made: Scaffold) -> tuple[bool, str]:
    """Run the contract tests, which every method must pass, on this one: (passed, what they print).

    Raises:
        BenchError: pytest is not installed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise BenchError("pytest is not installed", mend="pip install pytest")
    tests = declared("tests")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tests)]
    words += ["-o", f"pythonpath={tests}", "--no-header", "--tb=short", str(tests / CONTRACT)]
    with _findable(made) as paths:
        path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "PYTHONPATH": path, "BENCH_CONTRACT": made.key}
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=environment, check=False, timeout=1800
        )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


@contextmanager
def _findable(made: Scaffold) -> Iterator[list[str]]:
    """The paths from which a package that is not installed yet is found by its entry point; here too, meanwhile."""
    if made.folder is None or _installed(made):
        yield []
        return
    with tempfile.TemporaryDirectory() as name:
        info = Path(name) / f"bench_{made.module}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bench-{made.key}\nVersion: 0.1.0\n")
        point = f"[bench.methods]\n{made.key} = {made.file.parent.name}.{made.module}:{made.cls}\n"
        (info / "entry_points.txt").write_text(point)
        paths = [name, str(made.file.parents[1])]
        sys.path[:0] = paths
        registry.refresh()
        try:
            yield paths
        finally:
            del sys.path[: len(paths)]
            registry.refresh()


def _installed(made: Scaffold) -> bool:
    return made.key in registry.names("methods")


def _class(key: str) -> str:
    return "".join(part.capitalize() for part in key.split("-"))
