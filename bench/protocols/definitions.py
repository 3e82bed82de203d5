"""What identifies each protocol variant, read from ``bench/protocols/<name>.toml``. Imports no torch.

The .toml says *what* is measured (everything that can move the number); the .py of the same name says *how*.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench import registry
from bench.errors import BenchError, did_you_mean
from bench.files import canonical
from bench.suite import Strict, Suite, read_toml, validate

if TYPE_CHECKING:
    from bench.metrics.intervals import Statistic
    from bench.protocols.base import Evidence


@dataclass(frozen=True)
class Variant:
    """One way to measure, complete: ``definition`` holds every choice, after a backbone's and a suite's overrides."""

    protocol: str
    version: int
    name: str
    definition: dict[str, Any]

    @property
    def digest(self) -> str:
        """16 hex digits over name, version and definition: never over the data."""
        identity = [self.protocol, self.version, self.name, self.definition]
        return hashlib.sha256(canonical(identity).encode()).hexdigest()[:16]

    @property
    def role(self) -> str:
        """The data role that it measures with: one of its own where it names one, else the protocol's."""
        return str(self.definition.get("role", load(self.protocol).role))


@dataclass(frozen=True)
class Definition:
    """All variants of one protocol."""

    name: str
    version: int
    title: str
    role: str
    """The data role that the suite binds to a data set."""
    by_stage: bool
    """Whether its columns are those of the backbone's stages: ``top1@conv3``."""
    variants: dict[str, dict[str, Any]]
    file: Path
    schema: type[Strict] | None = None
    """What a definition must hold; None: anything."""

    @property
    def statistic(self) -> Callable[[Evidence, str], Statistic] | None:
        """(evidence, column) -> what the column is under resamples of the test examples; None: nobody says."""
        facts = registry.entry("protocols", self.name).facts
        found: Callable[[Evidence, str], Statistic] | None = named(facts.get("statistic", ""))
        return found

    def backbones(self, name: str) -> tuple[str, ...]:
        """The backbones for which the variant has tables of its own, and which alone it measures; none: any."""
        return tuple(self.variants[name].get("on", ()))

    def places(self) -> list[tuple[str, str | None]]:
        """(variant, backbone) of every definition there is; None: any backbone."""
        return [(name, backbone) for name in self.variants for backbone in self.backbones(name) or (None,)]

    def variant(self, name: str, suite: Suite | None = None, backbone: str | None = None) -> Variant:
        """The variant for a backbone, under the suite's overrides (which apply to ``standard`` only).

        ``[<variant>.family.<family>]`` replaces keys for backbones of that family, ``[<variant>.on.<backbone>]`` for
        that backbone; a variant with tables of the latter kind measures no other backbone.

        Raises:
            BenchError: no such variant, or not for that backbone; a key or value that the protocol does not know;
                an override of a key that the variant does not have.
        """
        if name not in self.variants:
            raise did_you_mean(f"variant of {self.name}", name, list(self.variants))
        own = self.backbones(name)
        if own and backbone not in own:
            raise BenchError(_not_for(name, backbone), where=self.file, mend=f"it knows {', '.join(own)}")
        stated = self.variants[name]
        definition = {key: value for key, value in stated.items() if key not in ("on", "family")}
        if backbone is not None:
            definition |= stated.get("family", {}).get(registry.family(backbone), {})
        if own:
            definition |= stated["on"][backbone]
        if suite is not None and name == "standard":
            for key, value in suite.protocols.get(self.name, {}).items():
                definition |= self._overridden(definition, key, value) or self._of_a_family(stated, key, suite)
        self.parse(definition, f"{self.file}, [{name}]" + (f" at suite {suite.name}" if suite else ""))
        return Variant(self.name, self.version, name, definition)

    def parse(self, definition: dict[str, Any], where: str) -> Strict | None:
        """The definition as the protocol's schema; None where it has none.

        Raises:
            BenchError: a key is unknown or missing, or a value is not understood.
        """
        return validate(self.schema, definition, where) if self.schema else None

    def _overridden(self, definition: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """The top-level entry in which an override changes something: a key, or a key of one of the tables."""
        if key in definition:
            return {key: value}
        for name, table in definition.items():
            if isinstance(table, dict) and key in table:
                return {name: {**table, key: value}}
        return {}

    def _of_a_family(self, stated: dict[str, Any], key: str, suite: Suite) -> dict[str, Any]:
        """Nothing: a key that the definition has for backbones of another family is none of this one's.

        Raises:
            BenchError: it has it for none.
        """
        every = [{k: v for k, v in stated.items() if k not in ("on", "family")}, *stated.get("family", {}).values()]
        inner = [k for each in every for table in each.values() if isinstance(table, dict) for k in table]
        known = dict.fromkeys([k for each in every for k in each] + inner)
        if key not in known:
            raise BenchError(
                f"suite {suite.name!r} overrides {key!r}, which {self.name} does not have",
                mend=f"known: {', '.join(known)}",
            )
        return {}


@cache
def load(name: str) -> Definition:
    """The protocol of that name.

    Raises:
        BenchError: unknown, or its .toml cannot be read.
    """
    entry = registry.entry("protocols", name)
    file = entry.file.with_suffix(".toml")
    data = read_toml(file)
    if not data or not all(isinstance(v, dict) for v in data.values()):
        raise BenchError("a protocol's file holds one [section] a variant", where=file)
    by_stage, schema = bool(entry.facts.get("by_stage", False)), named(entry.facts.get("schema", ""))
    return Definition(name, entry.version, entry.title, entry.facts["role"], by_stage, data, file, schema)


def named(words: str) -> Any:
    """What a protocol's literal names as ``module:name``; None where it is empty."""
    module, _, name = words.partition(":")
    return getattr(importlib.import_module(module), name) if module else None


def obstacle(protocol: str, variant: str, suite: Suite, backbone: str) -> str:
    """Why no run could ever measure a backbone under the variant at the suite; empty where one can."""
    if protocol not in registry.names("protocols"):
        return f"protocol {protocol} does not exist yet"
    found = load(protocol)
    if variant not in found.variants:
        return f"protocol variant {variant} does not exist yet"
    if backbone not in registry.names("backbones"):
        return f"backbone {backbone} does not exist yet"
    if found.backbones(variant) and backbone not in found.backbones(variant):
        return _not_for(variant, backbone)
    parsed = found.parse(found.variant(variant, suite, backbone).definition, str(found.file))
    return parsed.obstacle(backbone, suite.backbone) if isinstance(parsed, Fitting) else ""


def absent(protocol: str, variant: str, backbone: str, columns: list[str]) -> str:
    """Why a backbone never has any of the columns under a variant; empty where it may, or where nobody can know."""
    found = load(protocol)
    stages = registry.shape(backbone).get("stages") if found.by_stage else None
    parsed = found.parse(found.variant(variant, None, backbone).definition, str(found.file)) if stages else None
    if isinstance(parsed, Staged):
        stages = parsed.places(tuple(stages))
    places = [metric_and_place(column)[1] for column in columns]
    missing = [place for place in places if stages and place not in stages]
    return f"{backbone} has no stage {', '.join(dict.fromkeys(missing))}" if missing == places else ""


@runtime_checkable
class Fitting(Protocol):
    """A schema whose variants do not fit every backbone."""

    def obstacle(self, backbone: str, usual: str) -> str:
        """Why ``backbone`` cannot be measured at a suite whose usual backbone is another; empty where it can."""


@runtime_checkable
class Staged(Protocol):
    """A schema that says where a backbone is measured, for not every variant does so at the stages."""

    def places(self, stages: tuple[str, ...]) -> tuple[str, ...]:
        """Where a backbone with those stages is measured; its columns are named so."""


def _not_for(variant: str, backbone: str | None) -> str:
    return f"{variant} does not say how to measure {backbone or 'a backbone that is not named'}"


def heldout_share(suite: Suite) -> float:
    """The share of each class that ``imagenet-linear`` holds out of train at this suite."""
    return float(load("imagenet-linear").variant("standard", suite).definition["heldout"])


def metric_and_place(column: str) -> tuple[str, str]:
    """``top1@conv3`` -> ("top1", "conv3").

    Raises:
        BenchError: not of that form.
    """
    found = re.fullmatch(r"([a-z0-9_]+)@([a-z0-9_.-]+)", column)
    if not found:
        raise BenchError(f"column {column!r} is not <metric>@<stage or setting>")
    return found[1], found[2]


def of_one_class(column: str) -> bool:
    """Whether a column is of one class, such as ``ap_cat@all``, and no table's headline."""
    return "_" in metric_and_place(column)[0]
