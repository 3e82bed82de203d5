"""What a result says of itself: names, numbers, digests, provenance; against its run and today's definitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import identity, published, registry, suite
from bench.errors import BenchError
from bench.files import canonical, read_json
from bench.identity import digest, run_id
from bench.protocols.base import Evidence
from bench.protocols.definitions import Variant, metric_and_place, of_one_class
from bench.results import Result
from bench.runfolder import RunFolder

Spec = identity.Spec

MOST_BYTES = 2**20
"""Of a spec or a card."""
MOST_CHARACTERS = 10_000
"""Of one text."""

_PARTS = {"protocol": ("name", "version", "variant", "digest", "definition"), "data": ("train", "test")}
_SHARED = ("method", "options", "backbone", "suite", "seed", "versions", "pretraining_data", "pretraining_digest")
_SPEC = {*_SHARED, "kind", "protocol", "role", "data", "parent", "parent_digest"}


def spec_of(path: Path) -> Spec | None:
    """The spec of the run that made the result at ``path``; None: it is not here.

    Raises:
        BenchError: damaged, or not of an evaluation.
    """
    if path.name == "result.json":
        file = path.parent / "spec.json"
        spec = RunFolder(path.parent).spec() if file.is_file() else None
    else:
        file = path.parent / f"run-{path.name}"
        spec = _json(file) if file.is_file() else None
    if spec is not None and (not isinstance(spec, dict) or lacks(spec) or spec["kind"] != "evaluate"):
        raise BenchError("not the spec of an evaluation", where=file)
    return spec


def lacks(spec: Spec) -> set[str]:
    """The keys that the spec of an evaluation has and this one has not."""
    inner = {key for key, keys in _PARTS.items() if not isinstance(spec.get(key), dict) or set(keys) - spec[key].keys()}
    return (_SPEC - spec.keys()) | inner


def problems(path: Path, result: Result, spec: Spec | None) -> list[str]:
    """All that cannot be true of a result, whatever its evidence gives."""
    checks: list[Callable[[Result], Iterator[str]]] = [_texts, _names, _numbers, _provenance, _overlap]
    found = [problem for check in checks for problem in check(result)]
    if not found:
        found = list(_command(result))
    found += _misplaced(path, result, spec)
    return found + (_otherwise(path, result, spec) if spec else [])


def _texts(result: Result) -> Iterator[str]:
    return strange_texts(result.model_dump(mode="json", by_alias=True))


def strange_texts(value: Any) -> Iterator[str]:
    """A problem for every text, anywhere in a JSON value, that no program of ours writes."""
    for text in _strings(value):
        if not text.isprintable():
            yield f"a text holds control characters: {text[:80]!r}"
        elif len(text) > MOST_CHARACTERS:
            yield f"a text has {len(text):,} characters: {text[:40]!r}..."


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _names(result: Result) -> Iterator[str]:
    named = {"methods": result.method, "backbones": result.backbone, "protocols": result.protocol.name}
    for kind, key in named.items():
        if key not in registry.names(kind):  # type: ignore[arg-type]
            yield f"there is no {kind[:-1]} {key[:80]!r} here"
    for key in (*named.values(), result.suite, result.protocol.variant):
        try:
            published.name(key)
        except BenchError as error:
            yield str(error)
    for key in result.columns:
        try:
            metric_and_place(key)
        except BenchError as error:
            yield str(error)
    if not 0 <= result.seed < 2**31:
        yield f"seed {result.seed} is not from 0 to {2**31 - 1}"
    if not result.columns:
        yield "it has no number"


def _numbers(result: Result) -> Iterator[str]:
    for key, number in result.columns.items():
        values = number.model_dump(include={"value", "low", "high", "chance"})
        if number.unit == "%" and not all(0 <= value <= 100 for value in values.values()):
            yield f"{key} is not from 0 to 100 %"
        if number.low > number.high:
            yield f"{key}: low {number.low} is above high {number.high}"


def _provenance(result: Result) -> Iterator[str]:
    hashes = {
        "weights_sha256": (result.weights_sha256, 64),
        "evidence.sha256": (result.evidence.sha256, 64),
        "protocol.digest": (result.protocol.digest, 16),
        "pretraining_digest": (result.pretraining_digest, 16),
    }
    for key, (text, length) in hashes.items():
        if not re.fullmatch(rf"[0-9a-f]{{{length}}}", text):
            yield f"{key} is not {length} hex digits"
    for split in ("train", "test"):
        part = result.data.get(split)
        wanted = {"name": str, "digest": str, "n": int}
        if not isinstance(part, dict) or not all(isinstance(part.get(key), kind) for key, kind in wanted.items()):
            yield f"data.{split} does not say name, digest and n"
        elif split == "test" and any(number.n != part["n"] for number in result.columns.values()):
            yield f"the numbers do not stand on the {part['n']:,} test images"
    if not isinstance(result.code.get("bench"), str):
        yield "code does not say which release of bench measured it"
    seconds = result.cost.get("seconds")
    if not isinstance(seconds, int | float) or seconds < 0:
        yield "cost does not say how many seconds it took"


def _overlap(result: Result) -> Iterator[str]:
    """Images to train on among those to test on, by the names of data sets and splits."""
    said = {split: result.data.get(split) for split in ("train", "test")}
    named = {split: str(part.get("name", "")) for split, part in said.items() if isinstance(part, dict)}
    test = _splits(named.get("test", ""))
    for what, name in (("trained", named.get("train", "")), ("pretrained", result.pretraining_data)):
        shared = _splits(name) & test
        if shared:
            yield f"it was {what} and tested on {'/'.join(min(shared))}"


def _splits(name: str) -> set[tuple[str, str]]:
    """``scenes/train+unlabelled[4000]`` -> {("scenes", "train"), ("scenes", "unlabelled")}."""
    dataset, _, splits = name.partition("/")
    return {(dataset, split) for split in re.sub(r"\[\d+\]", "", splits).split("+") if split}


def _command(result: Result) -> Iterator[str]:
    """A command that is printed, and copied into shells, is the one that the result's identity gives."""
    from bench.run import command

    own = command(result.model_dump(mode="json", by_alias=True))
    if result.command != own:
        yield f"command is {result.command!r}, not {own!r}"


def _misplaced(path: Path, result: Result, spec: Spec | None) -> list[str]:
    """Whether a published result lies where its identity says; where its spec vouches for it, or said once."""
    if not re.fullmatch(r"s\d+\.json", path.name):
        return []
    try:
        places = published.places(result) if spec else {published.place(result)}
    except BenchError as error:
        return [str(error)]
    found = Path(*path.absolute().parts[-4:])
    if found in places:
        return []
    right = min(places, key=lambda place: len(str(place)))
    return [f"it belongs to {right.as_posix()}, not to {found.as_posix()}"]


def _otherwise(path: Path, result: Result, spec: Spec) -> list[str]:
    """What the result says otherwise than the spec of its run and the card of its weights."""
    said = result.model_dump(mode="json", by_alias=True)
    found = [f"{key} is not that of the run's spec" for key in _SHARED if said[key] != spec[key]]
    digests = {split: part.get("digest") for split, part in said["data"].items() if isinstance(part, dict)}
    try:
        planned = {split: part["digest"] for split, part in spec["data"].items()}
        named = {key: spec["protocol"][key] for key in said["protocol"]}
        made = Variant(named["name"], named["version"], named["variant"], spec["protocol"]["definition"])
        if made.digest != named["digest"]:
            found.append("the spec's protocol has another digest than its definition")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [*found, f"the run's spec is damaged: {error}"]
    parent = str(spec["parent"])
    if not re.fullmatch(r"pretrain-[A-Za-z0-9._-]+", parent):
        return [*found, f"the run's spec names no pretraining: {parent[:80]!r}"]
    if digests != planned:
        found.append("data are not those of the run's spec")
    if named != said["protocol"]:
        found.append("protocol is not that of the run's spec")
    if path.name == "result.json":
        card = path.parent.parent / parent / "card.json"
    else:
        card = published.pretraining(path) / f"card-{path.name}"
    return found + (_not_of_its_weights(result, spec, card) if card.is_file() else [])


def _not_of_its_weights(result: Result, spec: Spec, file: Path) -> list[str]:
    card, said = _json(file), result.model_dump(mode="json")
    if not isinstance(card, dict):
        return [f"not a card: {file.name}"]
    found = [f"{key} is not that of {file}" for key in ("weights_sha256", *_SHARED) if card.get(key) != said[key]]
    if card.get("run") != spec["parent"]:
        found.append(f"{file} is not the card of {spec['parent']}")
    if digest(card.get("pretraining")) != card.get("pretraining_digest"):
        found.append(f"{file} has another digest than its pretraining")
    return found


def today(result: Result, spec: Spec | None) -> tuple[list[str], list[str]]:
    """(problems, alarms): in what the result's identity differs from a result of today.

    What its run's spec vouches for is stale, an alarm; without the spec nothing explains the difference.
    """
    known = result.suite in suite.names()
    if not known:
        return ([], []) if spec else ([f"there is no suite {result.suite!r} here"], [])
    named = result.protocol
    try:
        now = identity.current(suite.load(result.suite), result.method, result.backbone, named.name, named.variant)
        now["protocol_version"] = registry.entry("protocols", named.name).version
    except BenchError as error:
        return [str(error)], []
    said = {
        "protocol_digest": named.digest,
        "method_version": result.versions.method,
        "backbone_version": result.versions.backbone,
        "pretraining_digest": result.pretraining_digest,
        "protocol_version": named.version,
    }
    found: list[str] = []
    alarms: list[str] = []
    for key, value in said.items():
        text = f"{key.replace('_', ' ')} is {value}, {now[key]} today"
        if isinstance(value, int) and value > now[key]:
            found.append(text)
        elif value != now[key]:
            (alarms if spec else found).append(f"stale: {text}")
    if result.versions.method == now["method_version"]:
        found += _undeclared(result)
    return found, alarms


def _undeclared(result: Result) -> list[str]:
    """Weights that a method of which only weights exist does not have."""
    weights = registry.entry("methods", result.method).facts.get("weights")
    if weights and result.weights_sha256 != weights.get(str(result.seed)):
        return [f"weights_sha256 is not that of {result.method}, seed {result.seed}"]
    return []


def at_chance(result: Result) -> list[str]:
    """Columns that guessing would explain, or that guessing would beat; none of a single class."""
    numbers = [(key, n) for key, n in result.columns.items() if n.chance < 100 and not of_one_class(key)]
    below = [key for key, n in numbers if n.high < n.chance]
    at = [key for key, n in numbers if n.low <= n.chance <= n.high]
    found = [("below chance", below), ("at chance", at)]
    return [f"{what}: {', '.join(keys)}" for what, keys in found if keys]


def of_another(result: Result, spec: Spec | None, arrays: Evidence) -> list[str]:
    """Whether the evidence was left by another run."""
    run = str(arrays.get("run", ""))
    if spec is not None:
        right = run == run_id(spec)
    else:
        right = run.startswith(f"evaluate-{result.method}-{result.backbone}-{result.suite}-s{result.seed}-")
    return [] if right else [f"the evidence is of another run ({run[:120] or 'unnamed'})"]


def key(result: Result) -> str:
    """One text for what may stand once in a store."""
    named = result.protocol
    return canonical(
        [
            *(result.suite, result.method, result.options, result.backbone, result.pretraining_data),
            *(named.name, named.variant, result.seed),
        ]
    )


def _json(file: Path) -> Any:
    if file.is_symlink() or file.stat().st_size > MOST_BYTES:
        raise BenchError("not a regular file of ordinary size", where=file)
    return read_json(file)
