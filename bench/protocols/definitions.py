"""What identifies each protocol variant, read from ``bench/protocols/<name>.toml``. Imports no torch.

The .toml says *what* is measured (everything that can move the number); the .py of the same name says *how*.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench import registry
from bench.errors import BenchError, did_you_mean
from bench.files import canonical
from bench.suite import Suite, read_toml


@dataclass(frozen=True)
class Variant:
    """One way to measure, complete: ``definition`` holds every choice, after the suite's overrides."""

    protocol: str
    version: int
    name: str
    definition: dict[str, Any]

    @property
    def digest(self) -> str:
        """16 hex digits over name, version and definition: never over the data."""
        identity = [self.protocol, self.version, self.name, self.definition]
        return hashlib.sha256(canonical(identity).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Definition:
    """All variants of one protocol."""

    name: str
    version: int
    title: str
    role: str
    """The data role that the suite binds to a data set."""
    variants: dict[str, dict[str, Any]]

    def variant(self, name: str, suite: Suite | None = None) -> Variant:
        """The variant under the suite's overrides (which apply to ``standard`` only).

        Raises:
            BenchError: no such variant; an override of a key that the variant does not have.
        """
        if name not in self.variants:
            raise did_you_mean(f"variant of {self.name}", name, list(self.variants))
        definition = dict(self.variants[name])
        if suite is not None and name == "standard":
            for key, value in suite.protocols.get(self.name, {}).items():
                if key not in definition:
                    raise BenchError(
                        f"suite {suite.name!r} overrides {key!r}, which {self.name} does not have",
                        mend=f"known: {', '.join(definition)}",
                    )
                definition[key] = value
        return Variant(self.name, self.version, name, definition)


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
    return Definition(name, entry.version, entry.title, entry.facts["role"], data)


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
