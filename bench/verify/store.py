"""A folder of published results as a whole: what stands twice, what does not belong there, what was removed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench import published
from bench.errors import BenchError
from bench.results import Result
from bench.verify.identity import key

_FILES = (
    r"[^/]+/[^/]+\.[^/]+/[^/]+\.[^/]+/(run-)?s\d+\.json",
    r"[^/]+/[^/]+\.[^/]+/[^/]+\.[^/]+/(s\d+\.npz|(detectron2|mmsegmentation)-s\d+\.yaml)",
    rf"[^/]+/{published.PRETRAINING}/[^/]+\.[^/]+/(card-s\d+\.json|samples-s\d+\.png)",
    re.escape(published.CHANGES),
)
_PICTURE = b"\x89PNG\r\n\x1a\n"


class Verified(Protocol):
    """What is known of one result."""

    path: str
    problems: list[str]
    alarms: list[str]
    result: Result | None
    content: str


def is_one(folder: Path) -> bool:
    """Whether this is a folder ``tables/results``."""
    return folder.is_dir() and folder.absolute().parts[-2:] == ("tables", "results")


def mark_twins(verdicts: Sequence[Verified]) -> None:
    """Name, in their verdicts, results that stand twice, or that share what no two runs can."""
    cells: dict[str, Verified] = {}
    weights: dict[str, Verified] = {}
    contents: dict[str, Verified] = {}
    for one in verdicts:
        if one.result is None:
            continue
        first = cells.setdefault(key(one.result), one)
        if first is not one:
            one.problems.append(f"the same cell and seed as {first.path}")
        first = weights.setdefault(one.result.weights_sha256, one)
        if first.result and first.result.seed != one.result.seed:
            one.problems.append(f"the weights of seed {one.result.seed} are those of seed {first.result.seed}")
        first = contents.setdefault(one.content or one.path, one)
        if first is not one and first.result:
            text = f"it measured, image by image, what {first.path} did"
            same = first.result.method == one.result.method and first.result.seed != one.result.seed
            (one.problems if same else one.alarms).append(text)


def strays(store: Path) -> list[tuple[str, str]]:
    """(path, problem) of every file that is not a published one, or too large, or not what its name says."""
    found = []
    for path in sorted(store.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        problem = _stray(path, path.relative_to(store).as_posix())
        if problem:
            found.append((str(path), problem))
    return found


def _stray(path: Path, name: str) -> str:
    if path.is_symlink() or not path.is_file():
        return "not a regular file"
    if not any(re.fullmatch(pattern, name) for pattern in _FILES):
        return "no published result consists of such a file"
    if path.stat().st_size > published.MOST_BYTES:
        return f"more than {published.MOST_BYTES:,} bytes: attach it to a release as <its sha256>{path.suffix}"
    if path.suffix == ".npz" or path.name.startswith("run-"):
        result = path.with_name(path.name.removeprefix("run-")).with_suffix(".json")
        return "" if result.is_file() else "its result is not here"
    if path.suffix == ".png":
        with path.open("rb") as file:
            return "" if file.read(len(_PICTURE)) == _PICTURE else "no PNG picture"
    return ""


def declarations(folder: Path) -> list[tuple[str, str]]:
    """(path, problem) of every file in ``tables/added`` that declares no method."""
    from bench import submission

    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            submission.read_added(path)
        except BenchError as error:
            found.append((str(path), str(error)))
    return found


def changes(store: Path, commit: str) -> list[tuple[str, str]]:
    """(path, problem) of every result that was removed or replaced since the commit without a reason.

    Raises:
        BenchError: no git here, or no such commit.
    """
    tables, words = store.parent, ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    found = _git(tables, *words, check=False)
    if found is None:
        raise BenchError(f"there is no commit {commit!r}", where=store, mend="fetch it, or name another")
    base = found.decode().strip()
    options = ("--relative", "--no-renames", "--no-ext-diff", "--name-only", "-z", "--diff-filter=DMT")
    listed = (_git(tables, "diff", *options, base, "--", store.name) or b"").decode(errors="replace").split("\0")
    reasons, problems = published.reasons(store), []
    for name in (path.removeprefix(f"{store.name}/") for path in listed):
        if not re.fullmatch(_FILES[0], name) or Path(name).name.startswith("run-"):
            continue
        old, path = _git(tables, "show", f"{base}:./{store.name}/{name}") or b"", store / name
        if path.is_file() and _same(old, path.read_bytes()):
            continue
        change = published.change(Path(name), old)
        if change not in reasons:
            what = "replaced" if path.is_file() else "removed"
            line = f'"{change}" = "why"'
            problems.append((str(path), f"{what} without a reason: say it in {published.CHANGES}, as {line}"))
    return problems


def _same(old: bytes, new: bytes) -> bool:
    try:
        return bool(json.loads(old) == json.loads(new))
    except (ValueError, RecursionError):
        return False


def _git(folder: Path, *arguments: str, check: bool = True) -> bytes | None:
    """What git prints; None where it fails and need not succeed."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"git does not run: {error}", where=folder) from error
    if done.returncode == 0:
        return done.stdout
    if check:
        raise BenchError(f"git fails: {done.stderr.decode(errors='replace')[:200]}", where=folder)
    return None
