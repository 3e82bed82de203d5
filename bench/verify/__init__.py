"""Verifies results: everything in them is recomputed or held against something, and nothing is taken on trust.

Three levels: *unproven* (the evidence is not here), *consistent* (every number is what the stored evidence gives, and
the evidence is the file that the result names) and *checked* (the evidence also agrees with the labels of the test
images). A result with a problem is *refuted*. An alarm is what a person should look at and no error: a number at
chance, a stale identity.

Whatever a result says is taken for hostile: files have a largest size, evidence is read without pickles and only as far
as its headers promise, and what is printed of it is one printable line.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

from bench import published, registry, results, suite
from bench.errors import BenchError, printable
from bench.files import canonical
from bench.paths import cache_root
from bench.protocols.base import Evidence, Protocol
from bench.results import Result
from bench.verify import evidence, identity, store

MOST_BYTES = 2**20
"""Of a result."""


@dataclass
class Verdict:
    """What verifying one file found."""

    path: str
    level: str = "refuted"
    """``refuted``, ``unproven`` (its evidence is not here), ``consistent`` or ``checked``."""
    problems: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    """What a person should look at; no error."""
    result: Result | None = None
    content: str = ""
    """sha256 over what was measured, whatever the evidence's file is called."""


def verify(
    paths: list[Path],
    runs: Path,
    data: Path | None = None,
    *,
    releases: Path | None = None,
    against: str | None = None,
) -> list[Verdict]:
    """Verify these results (files or folders), or all under ``runs`` and in ``tables/results``.

    A folder ``tables/results`` is also looked at as a whole: files that do not belong there, results that stand twice,
    and, with ``against``, what was removed or replaced since that commit without a reason.

    Args:
        data: hold the evidence against the labels found there.
        releases: where evidence lies that is too large for git, each file called ``<sha256>.npz``.

    Raises:
        BenchError: a path that holds no result; no such commit.
    """
    found = [path for given in paths for path in _files(given)] if paths else [p for _, p in results.files(runs)]
    verdicts = [verify_one(path, cache_root(runs), data, releases) for path in found]
    stores = [given.absolute() for given in paths if store.is_one(given)] if paths else [published.root()]
    if against and not stores:
        raise BenchError("no folder of published results to compare", mend="name tables/results, or no path at all")
    for folder in stores:
        mine = [v for v in verdicts if Path(v.path).absolute().is_relative_to(folder)]
        store.mark_twins(mine)
        extra = [*store.strays(folder), *store.declarations(folder.parent / "added")]
        extra += store.changes(folder, against) if against else []
        verdicts += [Verdict(path, problems=[problem]) for path, problem in extra]
    for verdict in verdicts:
        verdict.path = printable(verdict.path)
        verdict.problems = [printable(problem) for problem in verdict.problems]
        verdict.alarms = [printable(alarm) for alarm in verdict.alarms]
        if verdict.problems and verdict.level != "unproven":
            verdict.level = "refuted"
    return verdicts


def verify_one(path: Path, cache: Path, data: Path | None = None, releases: Path | None = None) -> Verdict:
    """One result file."""
    verdict = Verdict(str(path))
    try:
        verdict.result = result = read(path)
        spec = identity.spec_of(path)
        verdict.problems += identity.problems(path, result, spec)
        more, verdict.alarms = identity.today(result, spec)
        verdict.problems += more
        verdict.alarms += identity.at_chance(result)
        if result.protocol.name not in registry.names("protocols"):
            return verdict
        protocol: type[Protocol] = registry.entry("protocols", result.protocol.name).load()
        file = evidence.find(path, result, releases)
        if file is None:
            verdict.level = "refuted" if verdict.problems else "unproven"
            verdict.problems.append(f"its evidence is not here ({result.evidence.sha256}.npz)")
            return verdict
        arrays = evidence.read(file, result.evidence.sha256)
        verdict.content = evidence.content(arrays)
        verdict.problems += identity.of_another(result, spec, arrays)
        verdict.problems += evidence.inconsistent(result, protocol, arrays)
        if not verdict.problems:
            verdict.level = "consistent"
        if data is not None and not verdict.problems:
            verdict.problems = _against_labels(result, spec, protocol, arrays, cache, data)
            verdict.level = "refuted" if verdict.problems else "checked"
    except BenchError as error:
        verdict.problems.append(str(error))
    except RecursionError:
        verdict.problems.append("the result is nested too deeply")
    return verdict


def read(path: Path) -> Result:
    """A result that somebody else may have written.

    Raises:
        BenchError: no regular file, too large, with values that JSON does not have, or as :func:`bench.results.read`.
    """
    try:
        about = path.lstat()
    except OSError as error:
        raise BenchError(f"cannot read the result: {error.strerror}", where=path) from error
    if not stat.S_ISREG(about.st_mode):
        raise BenchError("not a regular file", where=path)
    if about.st_size > MOST_BYTES:
        raise BenchError(f"{about.st_size:,} bytes are too many for a result", where=path)
    result = results.read(path)
    try:
        canonical(result.model_dump(by_alias=True)).encode()
    except ValueError as error:
        raise BenchError(f"it holds a number that is not finite, or half a character: {error}", where=path) from error
    return result


def _against_labels(
    result: Result, spec: identity.Spec | None, protocol: type[Protocol], arrays: Evidence, cache: Path, data: Path
) -> list[str]:
    from bench.run import open_role

    # the suite of a run may be a file of the user's
    role = suite.Role.model_validate(spec["role"]) if spec else suite.load(result.suite).role(protocol.role)
    test = open_role(role, "test", data=data, cache=cache)
    if result.data["test"]["digest"] != test.digest:
        return [f"it was tested on other data than {test.name} here ({test.digest})"]
    shared = set(open_role(role, "train", data=data, cache=cache).ids) & set(test.ids)
    if shared:
        return [f"{len(shared)} images are in both train and test, {min(shared)} first"]
    try:
        return protocol.contradictions(arrays, test)
    except (LookupError, TypeError, ValueError) as error:
        return [f"the evidence cannot be of {test.name}: {error}"]


def _files(given: Path) -> list[Path]:
    if given.is_file():
        return [given]
    found = sorted(given.rglob("result.json")) + sorted(given.rglob("s[0-9]*.json"))
    if not found and not store.is_one(given):
        raise BenchError("no result here", where=given, mend="give a result.json, or a folder that holds some")
    return found
