"""One measured cell: what the results and runs on disk say of it. Exactly one state, and why. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench import identity, registry
from bench.errors import printable
from bench.metrics.intervals import t_interval
from bench.protocols import definitions
from bench.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

State = Literal["measured", "stale", "not run", "running", "failed", "not implemented"]
"""A published cell holds a number or is *not published*; there are no other states."""

STALE, OTHER_DATA, CHANCE = "†", "‡", "≈"

_MATCHED = ("method", "options", "backbone", "pretraining_data", "protocol", "variant")
_FAILED = {"FAILED": "", "TIMEOUT": "out of time", "OOM": "out of memory", "LOST": "lost"}
_LIVELIEST = ("RUNNING", "QUEUED", "PREEMPTED", "PENDING", *_FAILED, "CANCELLED", "BLOCKED")
_DIGITS = 10
"""Of aggregated numbers: machines differ in the last bits of a sum."""

Record = dict[str, Any]
Status = tuple[State, str]


@dataclass(frozen=True)
class Cell:
    """A state, the reason for it, and the number where there is one."""

    state: State
    reason: str = ""
    value: float | None = None
    """The mean over seeds."""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    """What ``low`` and ``high`` are."""
    sd: float | None = None
    """Over seeds; None for one seed."""
    seeds: dict[int, float] = field(default_factory=dict)
    n: int | None = None
    """Test examples."""
    unit: str = "%"
    chance: float | None = None
    at_chance: bool = False
    """The interval contains chance, or lies below it."""
    best: bool = False
    other_data: bool = False
    protocol: str = ""
    variant: str = ""
    digest: str = ""
    """The protocol's: the one it was measured under, or would be now."""
    data_digest: str = ""
    evidence: tuple[str, ...] = ()
    """The sha256 of each seed's."""
    heldout: float | None = None
    """The mean over seeds of the score on the held-out slice by which the learning rate was chosen, where one was."""
    command: str = ""
    """Computes the cell, for the first seed that lacks a fresh result; empty where no command can."""

    @property
    def marks(self) -> str:
        """The marks of what a reader must know of the number."""
        flags = {STALE: self.state == "stale", CHANCE: self.at_chance, OTHER_DATA: self.other_data}
        return "".join(mark for mark, holds in flags.items() if holds)


@dataclass(frozen=True)
class Place:
    """Everything that matches results to a cell, but the column."""

    suite: Suite
    method: str
    options: str
    backbone: str
    data: str
    protocol: str
    variant: str

    @property
    def key(self) -> tuple[str, ...]:
        """As ``_MATCHED`` names it."""
        return self.method, self.options, self.backbone, self.data, self.protocol, self.variant

    def obstacle(self, reads: str) -> str:
        """Why no run could ever fill the cell that shows the results' column ``reads``; empty where one can."""
        return self._obstacle or definitions.absent(self.protocol, self.variant, self.backbone, [reads])

    @cached_property
    def _obstacle(self) -> str:
        """The same of all columns."""
        why = definitions.obstacle(self.protocol, self.variant, self.suite, self.backbone)
        why = why or registry.misfit(self.method, self.backbone)
        if why:
            return why
        made = definitions.load(self.protocol).variant(self.variant, self.suite, self.backbone)
        return self.suite.lacks(made.role)

    def command(self, seed: int) -> str:
        """The command of one seed."""
        words = ["bench", "run", "--suite", self.suite.name, "--method", self.method, "--protocol", self.protocol]
        if self.variant != "standard":
            words += ["--variant", self.variant]
        if self.backbone != self.suite.backbone:
            words += ["--backbone", self.backbone]
        return shlex.join([*words, "--seed", str(seed)])


class Store:
    """What was measured under some protocols, and what is not done, at one suite."""

    def __init__(
        self,
        suite: Suite,
        results: pd.DataFrame,
        states: pd.DataFrame,
        seeds: Sequence[int] | None,
        protocols: Collection[str],
    ) -> None:
        self.wanted = tuple(suite.seeds if seeds is None else seeds)
        self._results: dict[tuple[str, ...], dict[str, list[Record]]] = {}
        self._states: dict[tuple[Any, ...], list[Record]] = {}
        mine = results[results["suite"] == suite.name]
        mine = mine if seeds is None else mine[mine["seed"].isin(self.wanted)]
        self.measured: set[tuple[str, str]] = set(zip(*map(_plain, (mine["method"], mine["options"])), strict=True))
        """The (method, options) that have results, under whatever protocol."""
        for one in _records(mine[mine["protocol"].isin(protocols)]):
            columns = self._results.setdefault(tuple(one[key] for key in _MATCHED), {})
            columns.setdefault(one["column"], []).append(one)
        for one in _records(states[states["suite"] == suite.name]):
            key = (one["method"], one["options"], one["backbone"], one["protocol"], one["variant"], one["seed"])
            self._states.setdefault(key, []).append(one)
        self._now = cache(partial(identity.current, suite))

    def cell(self, place: Place, reads: str) -> Cell:
        """The cell at ``place`` that shows the results' column ``reads``."""
        now = self._now(place.method, place.backbone, place.protocol, place.variant)
        columns = self._results.get(place.key, {})
        old: list[Record] = []
        fresh: list[Record] = []
        for one in columns.get(reads, ()):
            (old if _differences(one, now) else fresh).append(one)
        numbers = _one_a_seed(fresh)
        missing = {seed: self._status(place, seed, now) for seed in self.wanted if seed not in numbers}
        shared: Record = {
            "protocol": place.protocol,
            "variant": place.variant,
            "digest": now["protocol_digest"],
            "command": place.command(next(iter(missing), min(numbers, default=0))),
        }
        if numbers:
            return Cell("measured", _told(missing), **{**shared, **_aggregate(numbers)})
        if any(not _differences(one, now) for others in columns.values() for one in others):
            return Cell("not implemented", f"{place.backbone} gives no {reads}", **{**shared, "command": ""})
        outdated = _one_a_seed(_alike(old, now))
        if outdated:
            why = "; ".join([*_differences(next(iter(outdated.values())), now), *filter(None, [_busy(missing)])])
            return Cell("stale", why, **{**shared, **_aggregate(outdated)})
        states = {state for state, _ in missing.values()}
        state: State = next((s for s in ("running", "failed") if s in states), "not run")
        return Cell(state, _why(missing, state), **shared)

    def _status(self, place: Place, seed: int, now: Record) -> Status:
        """Where a seed without a fresh result stands."""
        run = (place.method, place.options, place.backbone)
        own, why = self._liveliest((*run, place.protocol, place.variant, seed), now)
        if own in ("", "BLOCKED", "QUEUED", "PENDING"):
            parent, parent_why = self._liveliest((*run, None, None, seed), now)
            if parent == "RUNNING":
                return "running", "pretraining"
            if parent in _FAILED:
                return "failed", f"pretraining: {_reason(parent, parent_why)}"
            own, why = own or parent, why if own else parent_why
        if own == "RUNNING":
            return "running", ""
        if own in _FAILED:
            return "failed", _reason(own, why)
        waits = "" if own == "PENDING" else own.lower()
        return "not run", f"{waits}: {why}" if waits and why else waits

    def _liveliest(self, key: tuple[Any, ...], now: Record) -> tuple[str, str]:
        """(state, reason) of the run of that key; of several, the one with most life in it; ("", "") for none."""
        runs = [one for one in self._states.get(key, ()) if not _differences(one, now)]
        if not runs:
            return "", ""
        best = min(runs, key=lambda one: _LIVELIEST.index(one["state"]))
        return best["state"], printable(best["reason"] or "")


def _records(frame: pd.DataFrame) -> list[Record]:
    """The rows as plain records, None where there is no value."""
    plain = {str(name): _plain(column) for name, column in frame.items()}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def _plain(column: pd.Series) -> list[Any]:
    found: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    return found


def _differences(record: Record, now: Record) -> list[str]:
    """In what a result, or a run, differs from a fresh one; what the record does not state counts as alike."""
    return [
        f"{key.replace('_', ' ')} {record[key]}, now {value}"
        for key, value in now.items()
        if record.get(key) is not None and record[key] != value
    ]


def _one_a_seed(records: Iterable[Record]) -> dict[int, Record]:
    """The first record of each seed, seeds rising."""
    first: dict[int, Record] = {}
    for one in records:
        first.setdefault(int(one["seed"]), one)
    return dict(sorted(first.items()))


def _alike(records: list[Record], now: Record) -> list[Record]:
    """Those of the first one's identity: numbers of different identities are never averaged."""
    return [one for one in records if all(one[key] == records[0][key] for key in now)]


def _aggregate(records: dict[int, Record]) -> Record:
    """One number from one record a seed, with what is known of its uncertainty."""
    values = {seed: float(one["value"]) for seed, one in records.items()}
    first = next(iter(records.values()))
    scores = [one["heldout"] for one in records.values() if one["heldout"] is not None]
    low, high = min(float(r["low"]) for r in records.values()), max(float(r["high"]) for r in records.values())
    interval = "95 % bootstrap over test examples" if len(values) == 1 else "span of two 95 % bootstraps"
    if len(values) > 2:
        low, high = t_interval(list(values.values()))
        interval = f"95 % t over {len(values)} seeds"
    return {
        "value": round(fmean(values.values()), _DIGITS),
        "low": round(low, _DIGITS),
        "high": round(high, _DIGITS),
        "interval": interval,
        "sd": round(float(np.std(list(values.values()), ddof=1)), _DIGITS) if len(values) > 1 else None,
        "seeds": values,
        "n": int(first["n"]),
        "unit": printable(first["unit"]),
        "chance": float(first["chance"]),
        "at_chance": low <= float(first["chance"]),
        "digest": first["protocol_digest"],
        "data_digest": "/".join(sorted({str(r["data_digest"]) for r in records.values()})),
        "evidence": tuple(str(r["evidence_sha256"] or "") for r in records.values()),
        "heldout": round(fmean(scores), _DIGITS) if len(scores) == len(records) else None,
    }


def _reason(state: str, why: str) -> str:
    return ": ".join(filter(None, [_FAILED[state], why])) or "no reason given"


def _told(missing: dict[int, Status]) -> str:
    """``seeds 1, 2 not run; seed 3 failed (out of memory)``."""
    shared: dict[Status, list[str]] = {}
    for seed, status in missing.items():
        shared.setdefault(status, []).append(str(seed))
    return "; ".join(
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} {state}" + (f" ({why})" if why else "")
        for (state, why), seeds in shared.items()
    )


def _busy(missing: dict[int, Status]) -> str:
    return _told({seed: status for seed, status in missing.items() if status != ("not run", "")})


def _why(missing: dict[int, Status], state: State) -> str:
    """The reason of a cell without a number: that of its seeds where they agree, else seed by seed."""
    statuses = set(missing.values())
    if len(statuses) == 1:
        return statuses.pop()[1]
    same = {seed: why for seed, (own, why) in missing.items() if own == state}
    told = [f"seed {seed}: {why}" if why else f"seed {seed}" for seed, why in same.items() if why or state != "not run"]
    rest = _busy({seed: status for seed, status in missing.items() if status[0] != state})
    return "; ".join([*told, *([rest] if rest else [])])
