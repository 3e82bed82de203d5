"""What pretrainings left: their curves, and pictures of what was learned."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, JsonValue

from bench import published, registry
from bench.errors import BenchError, printable
from bench.files import canonical, read_json
from bench.report import plots
from bench.report.site.frame import slug
from bench.suite import validate

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST = 2**21
"""Bytes of the largest picture that a page takes in."""


class _Training(BaseModel):
    images: int = 0
    curve: list[dict[str, Any]] = []


class _Pretext(BaseModel):
    metric: str
    value: FiniteFloat | None = None
    chance: FiniteFloat | None = None
    n: int | None = None


class Card(BaseModel):
    """What a page needs of a ``card.json``."""

    method: str
    suite: str
    seed: int
    options: dict[str, JsonValue]
    weights_sha256: str
    training: _Training
    pretext: _Pretext | None = None


@dataclass(frozen=True)
class Pretraining:
    """One that is done."""

    card: Card
    picture: Path | None
    """Of samples; only where they are generated: no photograph of a data set is published."""


def load(runs: Path) -> dict[str, list[Pretraining]]:
    """{method: its pretrainings}, those of runs before the same ones in ``tables/results``.

    One that cannot be read is left out with a warning.
    """
    found: dict[str, dict[tuple[Any, ...], Pretraining]] = {}
    for file, picture in _files(runs):
        try:
            card = validate(Card, read_json(file), file)
        except BenchError as error:
            warnings.warn(f"no pretraining, left out: {error}", stacklevel=2)
            continue
        key = (card.suite, card.seed, canonical(card.options), card.weights_sha256)
        found.setdefault(card.method, {}).setdefault(key, Pretraining(card, picture))
    return {method: list(own.values()) for method, own in found.items()}


def _files(runs: Path) -> Iterator[tuple[Path, Path | None]]:
    """(card, picture) of each."""
    for file in sorted(runs.glob("pretrain-*/card.json")):
        spec = file.with_name("spec.json")
        heldout = read_json(spec).get("heldout") if spec.is_file() else None
        yield file, file.with_name("samples.png") if heldout and heldout["dataset"] == "scenes" else None
    for file in sorted(published.root().glob(f"*/{published.PRETRAINING}/*/card-s*.json")):
        yield file, file.with_name(file.name.replace("card-", "samples-", 1)).with_suffix(".png")


def curves(entry: registry.Entry, done: Iterable[Pretraining]) -> Iterator[plots.Figure]:
    """One figure a suite and options: losses and pretext metric over epochs, a line a seed."""
    groups: dict[tuple[str, str], list[Card]] = {}
    for card in (one.card for one in done):
        groups.setdefault((card.suite, canonical(card.options)), []).append(card)
    for number, ((suite, options), cards) in enumerate(sorted(groups.items())):
        metric, chance = (cards[0].pretext.metric, cards[0].pretext.chance) if cards[0].pretext else ("loss", None)
        panels = []
        losses = sorted({key for card in cards for one in card.training.curve for key in one if key.startswith("loss")})
        for key in dict.fromkeys((*losses, metric)):
            drawn = tuple(curve for card in cards if len((curve := _over_epochs(card, key)).x) > 1)
            if drawn:
                panels.append(plots.Panel(printable(key), drawn, chance if key == metric else None))
        if panels:
            named = "" if options == "{}" else f", {options}"
            seeds = ", ".join(str(card.seed) for card in cards)
            yield plots.training(
                f"{slug(entry.key)}.{slug(suite)}.training-{number}",
                f"Pretraining of {printable(entry.title)}",
                printable(f"Pretraining at suite {suite}{named}; seed{'s' if len(cards) > 1 else ''} {seeds}."),
                tuple(panels),
            )


def metrics(done: Iterable[Pretraining]) -> list[Card]:
    """Those that left a pretext metric, measured on images that it did not train on, by suite, options and seed."""
    left = [one.card for one in done if one.card.pretext and one.card.pretext.value is not None]
    return sorted(left, key=lambda card: (card.suite, canonical(card.options), card.seed))


def _over_epochs(card: Card, key: str) -> plots.Curve:
    points = [(one.get("epoch", math.nan), one.get(key, math.nan)) for one in card.training.curve]
    kept = [(float(x), float(y)) for x, y in points if _finite(x) and _finite(y)]
    return plots.Curve(f"seed {card.seed}", tuple(x for x, _ in kept), tuple(y for _, y in kept))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def picture(done: Iterable[Pretraining]) -> str:
    """The picture of the longest pretraining, as base64; empty: there is none."""
    for one in sorted(done, key=lambda one: -one.card.training.images):
        if one.picture and one.picture.is_file() and one.picture.stat().st_size <= _MOST:
            content = one.picture.read_bytes()
            if content.startswith(_PNG):
                return base64.b64encode(content).decode("ascii")
    return ""
