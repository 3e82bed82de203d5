"""``bench publish``: from runs to ``tables/results``, verified, and never over another number in silence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import published, suite
from bench.errors import BenchError
from bench.files import atomic, canonical, read_json, write_json
from bench.paths import cache_root
from bench.results import Result
from bench.verify import Verdict, verify_one
from bench.verify.identity import spec_of

BESIDE = ("detectron2.yaml", "mmsegmentation.yaml")
"""What a run may leave beside its result."""
_MOST_CHANGES = 6
"""Changed numbers that one line names."""


@dataclass(frozen=True)
class Publication:
    """One result on its way."""

    source: Path
    """``result.json``, its evidence beside it."""
    target: Path
    result: Result
    spec: dict[str, Any] | None
    evidence: bytes
    stale: str
    """In what it is not what would be measured today."""


def of_runs(runs: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The results of the runs that the patterns name.

    Raises:
        BenchError: a pattern that fits no run, or none of whose runs is an evaluation that is done.
    """
    from bench.launch.state import folders

    found = [folder for folder in folders(runs, patterns) if folder.id.startswith("evaluate-")]
    files = [folder.path / "result.json" for folder in found if folder.done()]
    if not files:
        raise BenchError("none of these runs is an evaluation that is done", where=runs, mend="see `bench status`")
    return files


def publish(
    sources: list[Path],
    runs: Path,
    *,
    data: Path | None = None,
    replace: str | None = None,
    releases: Path | None = None,
) -> list[str]:
    """Verify results and copy them to where they belong, evidence first; one line each on what was done.

    All are verified before the first is written.

    Args:
        data: also hold the evidence against the labels found there.
        replace: why numbers that are published already may be replaced.
        releases: where to put evidence that is too large for git, as ``<sha256>.npz``, to be attached to a release.

    Raises:
        BenchError: a result does not verify, is of a suite that is not shipped, has too large an evidence and there is
            no ``releases``, or another number is published in its place and nobody says why it is replaced.
    """
    if replace is not None and not (replace.isprintable() and replace.strip()):
        raise BenchError("--replace says no reason", mend="write one line that others understand")
    store = published.root()
    ready = [_prepared(path, cache_root(runs), data, store) for path in sources]
    _refuse_twins(ready)
    for one in ready:
        if len(one.evidence) > published.MOST_BYTES and releases is None:
            raise BenchError(
                f"the evidence has {len(one.evidence):,} bytes; in git it may have {published.MOST_BYTES:,}",
                where=one.source,
                mend="name a folder by --releases, and attach what lies there then to a release",
            )
        if replace is None and (changed := _changed(one)):
            mend = "say why it is replaced, by --replace"
            raise BenchError(f"another result is published: {changed}", where=one.target, mend=mend)
    return [_write(one, store, replace, releases) for one in ready]


def _refuse_twins(ready: list[Publication]) -> None:
    first: dict[Path, Publication] = {}
    for one in ready:
        other = first.setdefault(one.target, one)
        if other is not one:
            mend = f"name one of them; the other is {one.source}"
            raise BenchError(f"two of these results are of one cell and seed{one.stale}", where=other.source, mend=mend)


def refuse(verdict: Verdict) -> None:
    """Raises BenchError: the result does not verify."""
    if verdict.problems:
        more = f" (and {len(verdict.problems) - 1} more)" if len(verdict.problems) > 1 else ""
        raise BenchError(f"it does not verify: {verdict.problems[0]}{more}", where=verdict.path)


def _prepared(path: Path, cache: Path, data: Path | None, store: Path) -> Publication:
    verdict = verify_one(path, cache, data)
    refuse(verdict)
    assert verdict.result is not None  # else it was refused
    result = verdict.result
    if result.suite not in suite.names():
        mend = "results compare within one suite, which everybody must have"
        raise BenchError(f"suite {result.suite!r} is not shipped", where=path, mend=mend)
    target = store / published.place(result)
    evidence = (path.parent / result.evidence.file).read_bytes()
    named = result.evidence.model_copy(update={"file": f"{target.stem}.npz"})
    stale = "".join(f"; {alarm}" for alarm in verdict.alarms if alarm.startswith("stale"))
    return Publication(path, target, result.model_copy(update={"evidence": named}), spec_of(path), evidence, stale)


def _json(result: Result) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True)


def _changed(one: Publication) -> str:
    """In what the published result is another; empty where there is none, or the same."""
    if not one.target.is_file():
        return ""
    old, new = read_json(one.target), _json(one.result)
    if canonical(old) == canonical(new):
        return ""
    before, after = ({k: n["value"] for k, n in each["columns"].items()} for each in (old, new))
    numbers = [
        f"{key} {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    keys = [key for key in new if key not in ("columns", "evidence") and old.get(key) != new[key]]
    shown = numbers[:_MOST_CHANGES] + ([f"{len(numbers) - _MOST_CHANGES} more"] if numbers[_MOST_CHANGES:] else [])
    return "; ".join([*shown, *([f"also {', '.join(keys)}"] if keys else [])])


def _write(one: Publication, store: Path, replace: str | None, releases: Path | None) -> str:
    name, stem = one.target.relative_to(store).as_posix(), one.target.stem
    changed = _changed(one)
    if one.target.is_file() and not changed:
        return f"unchanged: {name}"
    if changed:
        published.give_reason(store, published.change(Path(name), one.target.read_bytes()), replace or "")
    beside = one.target.with_suffix(".npz")
    said = ""
    if len(one.evidence) > published.MOST_BYTES and releases is not None:
        beside.unlink(missing_ok=True)
        beside = releases / f"{one.result.evidence.sha256}.npz"
        said = f"; attach {beside} to a release"
    with atomic(beside, "wb") as file:
        file.write(one.evidence)
    run = one.target.with_name(f"run-{stem}.json")
    if one.spec is None:
        run.unlink(missing_ok=True)
    else:
        write_json(run, one.spec)
        _write_pretraining(one)
    for extra in (one.source.with_name(name) for name in BESIDE):
        if extra.is_file():
            with atomic(one.target.with_name(f"{extra.stem}-{stem}{extra.suffix}"), "wb") as file:
                file.write(extra.read_bytes())
    write_json(one.target, _json(one.result))
    return f"{f'replaced ({changed})' if changed else 'published'}: {name}{said}{one.stale}"


def _write_pretraining(one: Publication) -> None:
    """The card of the weights, with recipe and curve; and the picture, where it shows nothing but generated images."""
    assert one.spec is not None
    parent = one.source.parent.parent / one.spec["parent"]
    folder, stem = published.pretraining(one.target), one.target.stem
    if not (parent / "card.json").is_file():
        return
    write_json(folder / f"card-{stem}.json", read_json(parent / "card.json"))
    picture, spec = parent / "samples.png", parent / "spec.json"
    heldout = json.loads(spec.read_text(encoding="utf-8")).get("heldout") if spec.is_file() else None
    if picture.is_file() and heldout and heldout["dataset"] == "scenes":
        with atomic(folder / f"samples-{stem}.png", "wb") as file:
            file.write(picture.read_bytes())
