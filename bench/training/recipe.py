"""The words in which a recipe is written: budget, optimisers and schedules. Imports no torch.

Schedules are functions of the fraction of training that is done, so a suite can scale the budget (epochs,
batch, learning rate) without touching the idea. Everything here is a frozen dataclass of plain values: it is
read from a method's source without importing it, hashed into a run's identity, and written into its card.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SGD",
    "Adam",
    "Constant",
    "Cosine",
    "Exponential",
    "InverseRoot",
    "MultiStep",
    "Poly",
    "RMSProp",
    "Recipe",
    "Table",
]


@dataclass(frozen=True)
class Constant:
    """The learning rate never changes."""

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return 1.0


@dataclass(frozen=True)
class MultiStep:
    """Multiply the rate by ``gamma`` at each of the fractions ``at`` of training (0 < at < 1, rising)."""

    at: tuple[float, ...]
    gamma: float = 0.1

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return self.gamma ** bisect.bisect_right(self.at, done)

    @classmethod
    def in_parts(cls, parts: float, gamma: float) -> MultiStep:
        """The rate drops whenever another 1 / ``parts`` of training is done."""
        return cls(tuple(k / parts for k in range(1, math.ceil(parts))), gamma)


@dataclass(frozen=True)
class Table:
    """Factors by the fraction of training done: ``rows`` of (until, factor); the first with done < until holds."""

    rows: tuple[tuple[float, float], ...]

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return next((factor for until, factor in self.rows if done < until), self.rows[-1][1])


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to ``end``."""

    end: float = 0.0

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Poly:
    """(1 - done) ** power."""

    power: float = 1.0

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return (1 - min(done, 1.0)) ** self.power


@dataclass(frozen=True)
class Exponential:
    """1 until the fraction ``since`` of training is done, then down to ``end``, the same factor at each update."""

    end: float
    since: float = 0.0

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return float(self.end ** (max(0.0, done - self.since) / (1 - self.since)))


@dataclass(frozen=True)
class InverseRoot:
    """1 / sqrt(1 + ``decay`` * done)."""

    decay: float

    def factor(self, done: float) -> float:
        """What multiplies the rate when the fraction ``done`` of training is done."""
        return float((1 + self.decay * done) ** -0.5)


Schedule = Constant | MultiStep | Table | Cosine | Poly | Exponential | InverseRoot


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; ``lr`` is the rate at the recipe's batch."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Schedule = Constant()
    warmup: float = 0.0
    """Fraction of training over which the rate rises linearly from 0."""
    clip: float | None = None
    """Largest norm of the gradient; None: no clipping."""


@dataclass(frozen=True)
class Adam:
    """Adam with decoupled weight decay where ``weight_decay`` is not 0 (AdamW)."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    warmup: float = 0.0
    clip: float | None = None


@dataclass(frozen=True)
class RMSProp:
    """The gradient over the root of its running mean square, in which a new square weighs 1 - ``smoothing``."""

    lr: float
    smoothing: float = 0.99
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Schedule = Constant()
    warmup: float = 0.0
    clip: float | None = None


Optimiser = SGD | Adam | RMSProp


@dataclass(frozen=True)
class Recipe:
    """How a task trains: a budget and one optimiser a name."""

    epochs: int
    batch: int
    """Images an update, over all processes; smaller per-process batches are accumulated to it."""
    optimiser: Optimiser | dict[str, Optimiser] = field(default_factory=lambda: SGD(lr=0.01))
    precision: str | None = None
    """``bf16`` (mixed) or ``fp32``; None: what the device is best at, so a GPU and a CPU differ."""
    source: str = ""
    """Where the figures stand: paper section or repository file."""

    def optimisers(self) -> dict[str, Optimiser]:
        """By name; a single one is called ``main``."""
        return self.optimiser if isinstance(self.optimiser, dict) else {"main": self.optimiser}

    def scaled(
        self,
        *,
        epochs: int | None = None,
        batch: int | None = None,
        lr: float = 1.0,
        precision: str | None = None,
    ) -> Recipe:
        """The same recipe at another budget; ``lr`` multiplies every rate."""
        scaled = {name: dataclasses.replace(o, lr=o.lr * lr) for name, o in self.optimisers().items()}
        return dataclasses.replace(
            self,
            epochs=self.epochs if epochs is None else epochs,
            batch=self.batch if batch is None else batch,
            optimiser=scaled if isinstance(self.optimiser, dict) else scaled["main"],
            precision=precision or self.precision,
        )

    def optimised(self, **fields: Any) -> Recipe:
        """The same recipe with other values in those fields of all its optimisers; TypeError: one has no such field."""
        made = {name: dataclasses.replace(o, **fields) for name, o in self.optimisers().items()}
        return dataclasses.replace(self, optimiser=made if isinstance(self.optimiser, dict) else made["main"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, each dataclass tagged with its ``kind``; :func:`from_dict` reads them.

        Without ``source``, which moves no number, so it takes no part in identities, and a precision left open.
        """
        left_out = {"source"} if self.precision else {"source", "precision"}
        return {key: value for key, value in _plain(self).items() if key not in left_out}


def from_dict(data: dict[str, Any]) -> Recipe:
    """Rebuild a recipe from :meth:`Recipe.to_dict`'s output."""
    made = _rebuild(data)
    if not isinstance(made, Recipe):
        raise TypeError(f"not a recipe: {data.get('kind')!r}")
    return made


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _rebuild(value: Any) -> Any:
    if isinstance(value, dict):
        fields = {k: _rebuild(v) for k, v in value.items() if k != "kind"}
        return globals()[value["kind"]](**fields) if value.get("kind") in __all__ else fields
    if isinstance(value, list):
        return tuple(_rebuild(v) for v in value)
    return value
