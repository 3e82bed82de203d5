"""``bench add``: what others trained or measured, validated and put in place.

Two kinds of files come in. ``<method>.toml`` declares a method without code: what it is and, where somebody exported
backbones of ours, the folders that hold their ``backbone.safetensors`` and ``card.json``; it becomes
``tables/added/<method>.toml``, and each folder a pretraining that is done. ``result.json`` with its evidence is a
result that was computed elsewhere; it goes where ``bench publish`` would put it. Importing this imports no torch.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from bench import identity, published, registry
from bench import suite as suites
from bench.errors import BenchError
from bench.files import atomic, read_json, write_json
from bench.identity import Spec
from bench.paths import declared
from bench.runfolder import RunFolder
from bench.suite import Strict, read_toml, validate

MOST_BYTES = 2**16
"""Of a declaration."""
MOST_WEIGHTS = 2**30
"""Bytes of a ``backbone.safetensors``."""
SAME_NET = {"preprocess", "norm", "lrn", "leak", "groups", "fc"}
"""What may be another in a card than in the backbone of that name: with other widths it would be another net."""

_PROVENANCE = ("training", "pretext", "code", "hardware")


class Method(Strict, strict=True):
    """A method without code. The key is the file's name."""

    title: str = Field(min_length=1, max_length=80)
    """As tables print it."""
    citation: str = Field(pattern=r"^[A-Za-z0-9:._/+-]{1,80}$")
    """A key of ``tables/references.bib``."""
    idea: str = Field(min_length=40, max_length=4000)
    """What a reader of its page learns: how it was trained, on what, by whose code."""
    version: int = Field(1, ge=1)
    """Raised whenever the weights of a seed are replaced."""
    needs: list[Literal["image", "label", "clip"]] = ["image"]
    """What it learned from; with ``label``, its row is a reference."""
    suite: str
    """Where its numbers compare."""
    backbone: str
    """The suite's."""
    pretraining_data: str
    """What it learned from, as the suite calls it: ``scenes/unlabelled[4000]``."""
    weights: dict[str, str] = {}
    """By seed: a folder beside the file that comes in; the sha256 of the weights in ``tables/added``."""

    @field_validator("title", "citation", "idea", "suite", "backbone", "pretraining_data")
    @classmethod
    def _printable(cls, text: str) -> str:
        if not all(c.isprintable() or c == "\n" for c in text):
            raise ValueError("control characters")
        return text

    @field_validator("weights")
    @classmethod
    def _by_seed(cls, weights: dict[str, str]) -> dict[str, str]:
        if not all(re.fullmatch(r"0|[1-9]\d{0,8}", seed) for seed in weights):
            raise ValueError("its keys are not seeds")
        return weights


def add(
    file: Path,
    runs: Path,
    data: Path,
    *,
    check: bool = False,
    replace: str | None = None,
    releases: Path | None = None,
) -> list[str]:
    """Validate a submission and put it in place; one line each on what was done.

    Args:
        check: also hold a result's evidence against the labels found under ``data``.
        replace, releases: as of :func:`bench.publish.publish`.

    Raises:
        BenchError: it is not valid; nothing was written then.
    """
    if file.suffix == ".toml":
        return add_method(file, runs, data)
    if file.suffix != ".json":
        mend = "bench add takes a method's .toml, or a result's .json with its evidence beside it"
        raise BenchError("neither a method nor a result", where=file, mend=mend)
    from bench.publish import publish

    return publish([file], runs, data=data if check else None, replace=replace, releases=releases)


def read(file: Path) -> Method:
    """A declaration of a method, strictly, from anybody.

    Raises:
        BenchError: no regular file, too large, not TOML, a key or value that is not understood, a file name that is no
            key, a suite that is not shipped or uses another backbone or other data.
    """
    try:
        about = file.lstat()
    except OSError as error:
        raise BenchError(f"cannot read the method: {error.strerror}", where=file) from error
    if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
        raise BenchError(f"not a regular file of at most {MOST_BYTES:,} bytes", where=file)
    if file.suffix != ".toml":
        raise BenchError("not a .toml file", where=file)
    published.name(file.stem)
    method = validate(Method, read_toml(file), file)
    if method.suite not in suites.names():
        raise BenchError(f"suite {method.suite[:80]!r} is not shipped", where=file, mend=", ".join(suites.names()))
    suite = suites.load(method.suite)
    usual = suite.role(identity.role_by_needs(set(method.needs))).name()
    for what, said, own in (
        ("backbone", method.backbone, suite.backbone),
        ("pretraining_data", method.pretraining_data, usual),
    ):
        if said != own:
            mend = "numbers compare only where these are the same"
            raise BenchError(f"{what} is {said[:80]!r}, at suite {suite.name} it is {own!r}", where=file, mend=mend)
    return method


def read_added(file: Path) -> Method:
    """A declaration in ``tables/added``; raises as :func:`read`, and where weights are not named by their sha256."""
    method = read(file)
    for seed, sha256 in method.weights.items():
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise BenchError(f"weights.{seed} is not a sha256", where=file)
    return method


def add_method(file: Path, runs: Path, data: Path) -> list[str]:
    """Declare a method without code, and put its weights in place as pretrainings that are done."""
    method, key = read(file), file.stem
    if key in registry.names("methods") and registry.entry("methods", key).origin != "added":
        raise BenchError(f"there is a method {key!r} already", where=file, mend="give your file another name")
    weights = {seed: _folder(file, said) for seed, said in method.weights.items()}
    cards = {seed: _card(folder, method) for seed, folder in weights.items()}
    target = declared("tables") / "added" / f"{key}.toml"
    hashes = {seed: card["weights_sha256"] for seed, card in cards.items()}
    merged = _merged(method.model_copy(update={"weights": hashes}), target)
    if len(set(merged.weights.values())) != len(merged.weights):
        raise BenchError("two seeds have the same weights", where=file)
    said = [] if _cited(method.citation) else [f"note: tables/references.bib has no {method.citation} yet"]
    before = target.read_bytes() if target.is_file() else None
    with atomic(target) as text:
        text.write(_toml(merged))
    registry.refresh()
    try:
        specs = {seed: _spec(method, key, int(seed), runs, data) for seed in weights}
    except BenchError:
        _restore(target, before)
        raise
    said.append(f"declared: {target.parent.name}/{target.name}")
    for seed, folder in weights.items():
        run = RunFolder.create(runs, specs[seed])
        _place(run, folder, cards[seed])
        said.append(f"in place: {run.id}")
    if weights:
        said.append(f"measure it: bench reproduce imagenet-linear --suite {method.suite} --methods {key}")
    return said


def _folder(file: Path, said: str) -> Path:
    """The folder of weights that a declaration names, below the declaration's own."""
    here = file.parent.resolve()
    folder = (here / said).resolve()
    if not folder.is_relative_to(here):
        raise BenchError(f"the weights {said[:80]!r} are not below the folder of the declaration", where=file)
    return folder


def _card(folder: Path, method: Method) -> dict[str, Any]:
    """The card of a folder whose weights are a net of the declared kind, loaded to be sure."""
    from bench.checkpoints import card
    from bench.verify.identity import strange_texts

    for name, most in ((card.WEIGHTS, MOST_WEIGHTS), (card.CARD, published.MOST_BYTES)):
        file = folder / name
        if not file.is_file() or file.is_symlink() or file.stat().st_size > most:
            raise BenchError(f"not a regular file of at most {most:,} bytes", where=file)
    said = read_json(folder / card.CARD)
    if isinstance(said, dict):
        if said.get("backbone") != method.backbone:
            raise BenchError(f"a backbone {str(said.get('backbone'))[:80]!r}, not {method.backbone}", where=folder)
        overrides = said.get("overrides")
        other = sorted(set(overrides) - SAME_NET) if isinstance(overrides, dict) else []
        if other:
            raise BenchError(f"another net than {method.backbone}: its {', '.join(other)[:80]} differ", where=folder)
    for problem in strange_texts(said):
        raise BenchError(problem, where=folder / card.CARD)
    backbone, found = card.load(folder)
    if not all(value.isfinite().all() for value in backbone.state_dict().values()):
        raise BenchError("the weights hold numbers that are not finite", where=folder / card.WEIGHTS)
    return found


def _merged(method: Method, target: Path) -> Method:
    """The declaration with the seeds that are declared already, where nothing else differs.

    Raises:
        BenchError: something does, and the version was not raised.
    """
    if not target.is_file():
        return method
    old = read_added(target)
    if method.version > old.version:
        return method
    other = {seed for seed, sha256 in method.weights.items() if old.weights.get(seed, sha256) != sha256}
    same = old.model_dump(exclude={"weights"}) == method.model_dump(exclude={"weights"})
    if other or not same:
        what = f"the file of seed {min(other)}" if other else "what it says"
        raise BenchError(
            f"{target.stem} is declared already, and {what} was another", where=target, mend="raise version"
        )
    return method.model_copy(update={"weights": {**old.weights, **method.weights}})


def _cited(citation: str) -> bool:
    file = declared("tables") / "references.bib"
    return file.is_file() and f"{{{citation}," in file.read_text(encoding="utf-8")


def _restore(target: Path, before: bytes | None) -> None:
    if before is None:
        target.unlink(missing_ok=True)
    else:
        with atomic(target, "wb") as file:
            file.write(before)
    registry.refresh()


def _toml(method: Method) -> str:
    """A declaration as text; JSON's strings, integers and lists are TOML's too."""
    facts = method.model_dump(exclude={"weights"})
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]
    if method.weights:
        rising = sorted(method.weights.items(), key=lambda item: int(item[0]))
        lines += ["", "[weights]", *(f'{seed} = "{sha256}"' for seed, sha256 in rising)]
    return "\n".join(lines) + "\n"


def _spec(method: Method, key: str, seed: int, runs: Path, data: Path) -> Spec:
    from bench.plan import pretrain
    from bench.workflow import digests

    return pretrain(suites.load(method.suite), key, digests(runs, data, need_data=True), seed=seed).spec


def _place(run: RunFolder, folder: Path, submitted: dict[str, Any]) -> None:
    """Copy weights, then card; the card's account of where they come from is that of the run's spec."""
    from bench.checkpoints import card

    spec = run.spec()
    keys = ("method", "options", "suite", "seed", "versions", "pretraining", "pretraining_data", "pretraining_digest")
    seconds = submitted["cost"].get("seconds") if isinstance(submitted.get("cost"), dict) else None
    made = {
        **{key: submitted[key] for key in card.OWN},
        "run": run.id,
        **{key: spec[key] for key in keys},
        "data": spec["data"],
        **{key: submitted[key] for key in _PROVENANCE if isinstance(submitted.get(key), dict)},
        "cost": {"seconds": seconds, "attempts": 1},
    }
    with atomic(run.path / card.WEIGHTS, "wb") as file:
        file.write((folder / card.WEIGHTS).read_bytes())
    write_json(run.path / card.CARD, made)
