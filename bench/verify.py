"""Recomputes results from their evidence.

Two levels: *consistent* (every number is what the stored evidence gives, and the evidence is the file that the
result names) and *checked* (the evidence also agrees with the labels of the test images).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from bench import registry, results, suite
from bench.errors import BenchError
from bench.files import read_json
from bench.paths import cache_root
from bench.protocols.base import Evidence, Protocol
from bench.results import Result
from bench.runfolder import RunFolder


@dataclass
class Verdict:
    """What verifying one result found."""

    path: str
    level: str = "refuted"
    """``refuted``, ``unproven`` (its evidence is not here), ``consistent`` or ``checked``."""
    problems: list[str] = field(default_factory=list)


def verify(paths: list[Path], runs: Path, data: Path | None) -> list[Verdict]:
    """Verify these results (files or folders), or all under ``runs`` and in ``tables/results``.

    With ``data``, the evidence is also held against the labels found there.

    Raises:
        BenchError: a path that holds no result.
    """
    found = [path for given in paths for path in _files(given)] if paths else [p for _, p in results.files(runs)]
    return [verify_one(path, cache_root(runs), data) for path in found]


def verify_one(path: Path, cache: Path, data: Path | None) -> Verdict:
    """One result file."""
    verdict = Verdict(str(path))
    try:
        result = results.read(path)
        protocol: type[Protocol] = registry.entry("protocols", result.protocol.name).load()
        evidence = _evidence(path, result)
        if evidence is None:
            verdict.level = "unproven"
            verdict.problems = ["its evidence is not here"]
            return verdict
        verdict.problems = _not_of_its_run(path, result) + _of_another(result, evidence)
        verdict.problems += _inconsistent(result, protocol, evidence)
        if not verdict.problems:
            verdict.level = "consistent"
        if data is not None and not verdict.problems:
            verdict.problems = _against_labels(path, result, protocol, evidence, cache, data)
            verdict.level = "refuted" if verdict.problems else "checked"
    except BenchError as error:
        verdict.level, verdict.problems = "refuted", [str(error)]
    return verdict


def _evidence(path: Path, result: Result) -> Evidence | None:
    file = path.parent / Path(result.evidence.file).name
    if not file.is_file():
        return None
    if results.sha256(file) != result.evidence.sha256:
        raise BenchError("the evidence is not the file that the result names (its sha256 differs)", where=file)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise BenchError(f"the evidence cannot be read: {error}", where=file) from error


def _not_of_its_run(path: Path, result: Result) -> list[str]:
    """What the result says otherwise than the spec of its run and the card of its weights, where they are here."""
    folder = RunFolder(path.parent)
    if path.name != "result.json" or not (path.parent / "spec.json").is_file():
        return []
    spec, said = folder.spec(), result.model_dump(mode="json", by_alias=True)
    keys = ("method", "options", "backbone", "pretraining_data", "suite", "seed", "versions", "pretraining_digest")
    problems = [f"{key} is not that of spec.json" for key in keys if said[key] != spec[key]]
    digests = {split: part.get("digest") for split, part in said["data"].items()}
    if digests != {split: part["digest"] for split, part in spec["data"].items()}:
        problems.append("data are not those of spec.json")
    named = {key: spec["protocol"][key] for key in said["protocol"]}
    if named != said["protocol"]:
        problems.append("protocol is not that of spec.json")
    card = path.parent.parent / spec["parent"] / "card.json"
    if card.is_file() and read_json(card)["weights_sha256"] != result.weights_sha256:
        problems.append(f"weights_sha256 is not that of {card}")
    return problems


def _of_another(result: Result, evidence: Evidence) -> list[str]:
    """Whether the evidence was left by a run of another cell."""
    wanted = f"evaluate-{result.method}-{result.backbone}-{result.suite}-s{result.seed}-"
    run = str(evidence.get("run", ""))
    return [] if run.startswith(wanted) else [f"the evidence is of another run ({run or 'unnamed'})"]


def _inconsistent(result: Result, protocol: type[Protocol], evidence: Evidence) -> list[str]:
    """Every number that is not what the evidence gives."""
    try:
        columns = protocol.columns(evidence)
    except (KeyError, ValueError, TypeError) as error:
        return [f"the evidence lacks what {result.protocol.name} needs: {error}"]
    problems = [f"{name} has no evidence" for name in result.columns.keys() - columns.keys()]
    problems += [f"{name} is missing" for name in columns.keys() - result.columns.keys()]
    for name in sorted(columns.keys() & result.columns.keys()):
        said, shown = result.columns[name].model_dump(), columns[name]
        problems += [
            f"{name}.{key} is {said[key]}, its evidence gives {shown[key]}" for key in said if said[key] != shown[key]
        ]
    return problems


def _against_labels(
    path: Path, result: Result, protocol: type[Protocol], evidence: Evidence, cache: Path, data: Path
) -> list[str]:
    from bench.run import open_role

    if (path.parent / "spec.json").is_file():  # the suite may be a file of the user's
        role = suite.Role.model_validate(RunFolder(path.parent).spec()["role"])
    else:
        role = suite.load(result.suite).role(protocol.role)
    return protocol.contradictions(evidence, open_role(role, "test", data=data, cache=cache))


def _files(given: Path) -> list[Path]:
    if given.is_file():
        return [given]
    found = sorted(given.rglob("result.json")) + sorted(given.rglob("s[0-9]*.json"))
    if not found:
        raise BenchError("no result here", where=given, mend="give a result.json, or a folder that holds some")
    return found
