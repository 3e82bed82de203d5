"""A suite: the scale at which a table is computed. Read strictly from ``bench/suites/*.toml``.

A suite binds a backbone, a data set for each role, budgets and seeds. It scales the budget of a method, never
its idea; what it changes of a protocol enters the protocol's digest.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.errors import BenchError, did_you_mean
from bench.training.recipe import Cosine, MultiStep, Recipe

M = TypeVar("M", bound=BaseModel)

_FOLDER = Path(__file__).parent / "suites"
_PRETRAINING = ("pretrain", "clips")
"""The roles on which methods without labels train; on all others, some protocol measures."""


class Strict(BaseModel):
    """Unknown keys are errors; values are never coerced across kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Role(Strict):
    """The data set that plays a role (``pretrain``, ``clips``, ``imagenet``, ``voc07``, ...), and its splits."""

    dataset: str
    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    """For generated data sets: side, classes."""
    train_options: dict[str, Any] = {}
    test_options: dict[str, Any] = {}

    @property
    def source(self) -> str:
        """The data set whose images these are: that which a generated one draws over, where there is one."""
        return str(self.options.get("over", self.dataset))

    def describe(self) -> dict[str, Any]:
        """Plain JSON; part of identities."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def name(self) -> str:
        """``tiny-imagenet-50/train+unlabelled``: what results call the pretraining data."""
        size = self.train_options.get("size")
        return f"{self.dataset}/{'+'.join(self.train)}" + (f"[{size}]" if size else "")


class Budget(Strict, strict=True):
    """How much a method trains at this suite. What is None is the recipe's own."""

    epochs: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)
    lr: float = Field(1.0, gt=0)
    """Multiplies the recipe's learning rates."""
    warmup: float | None = Field(None, ge=0)
    """Epochs over which the rate rises from 0."""
    schedule: Literal["cosine", "recipe"] | None = None
    """``cosine``: half of one, from the rate to 0, which is what a short budget wants; ``recipe``: the recipe's own."""
    precision: Literal["bf16", "fp32"] | None = None
    """``bf16``: mixed, which pays on CPUs that compute it (AVX512_BF16, AMX) as on GPUs; None: bf16 on GPUs alone."""


class MethodSettings(Budget):
    """Budget and options of one method at this suite; and what of its optimiser is another, where the literature
    trains the suite's backbone otherwise than the recipe does."""

    options: dict[str, Any] = {}
    weight_decay: float | None = Field(None, ge=0)
    nesterov: bool | None = None
    drops: list[int] | None = None
    """The epochs after which the rate falls to a tenth, each time."""

    @model_validator(mode="after")
    def _drops_rise(self) -> MethodSettings:
        if self.drops is not None and (sorted(set(self.drops)) != self.drops or min(self.drops, default=1) < 1):
            raise ValueError(f"drops {self.drops} are not epochs from 1 on, rising")
        if self.drops is not None and self.schedule is not None:
            raise ValueError("drops and schedule both say how the rate falls")
        return self


class Suite(Strict):
    """One file of ``bench/suites``."""

    name: str
    title: str
    description: str
    paper: bool = False
    """At the papers' own scale: published and measured numbers may stand side by side."""
    backbone: str
    gpu_hours_per_epoch: float = 0.0
    """What an epoch of the training images costs, for ``--dry-run``; 0 where no GPU is needed."""
    seeds: tuple[int, ...] = (0,)
    roles: dict[str, Role]
    pretrain: Budget = Budget()
    methods: dict[str, MethodSettings] = {}
    protocols: dict[str, dict[str, Any]] = {}
    """Overrides of each protocol's ``standard`` variant."""

    @model_validator(mode="after")
    def _pretraining_sees_no_test_image(self) -> Suite:
        for name, role in self.roles.items():
            for train in (self.roles[own] for own in _PRETRAINING if own in self.roles and name not in _PRETRAINING):
                both = set(train.train) & set(role.test) if train.source == role.source else set()
                if both:
                    raise ValueError(f"pretraining uses the split {min(both)!r}, on which {name} is tested")
        return self

    def role(self, name: str) -> Role:
        """Raises BenchError: the suite binds no data set to that role."""
        if name not in self.roles:
            raise BenchError(
                f"suite {self.name!r} binds no data set to the role {name!r}",
                where=_FOLDER / f"{self.name}.toml",
                mend=f"add [roles.{name}] with dataset, train and test",
            )
        return self.roles[name]

    def lacks(self, role: str) -> str:
        """Why nothing can be done with a role that the suite does not bind; empty where it does."""
        return "" if role in self.roles else f"suite {self.name} binds no data to {role}"

    def budget(self, method: str) -> Budget:
        """The method's own settings over the suite's."""
        own = self.methods.get(method, MethodSettings())
        stated = {key: getattr(own, key) for key in Budget.model_fields if getattr(own, key) is not None}
        return self.pretrain.model_copy(update={**stated, "lr": own.lr * self.pretrain.lr})

    def recipe(self, method: str, own: Recipe) -> Recipe:
        """The method's recipe at this suite.

        Raises:
            BenchError: the suite changes what the recipe's optimiser does not have.
        """
        budget, settings = self.budget(method), self.methods.get(method, MethodSettings())
        epochs = budget.epochs or own.epochs
        changes: dict[str, Any] = {"weight_decay": settings.weight_decay, "nesterov": settings.nesterov}
        if budget.warmup is not None:
            changes["warmup"] = budget.warmup / epochs
        if settings.drops is not None:
            changes["schedule"] = MultiStep(tuple(epoch / epochs for epoch in settings.drops))
        elif budget.schedule == "cosine":
            changes["schedule"] = Cosine()
        changes = {name: value for name, value in changes.items() if value is not None}
        try:
            changed = own.optimised(**changes)
        except TypeError as error:
            raise BenchError(f"{method} has no such optimiser: {error}", where=f"suite {self.name}") from error
        return changed.scaled(epochs=budget.epochs, batch=budget.batch, lr=budget.lr, precision=budget.precision)

    def options(self, method: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """The method's options at this suite, the row's own on top."""
        return {**self.methods.get(method, MethodSettings()).options, **(options or {})}


def names() -> list[str]:
    """The suites that there are."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


@cache
def load(name: str) -> Suite:
    """The suite of that name, or at that path (``./my.toml``).

    Raises:
        BenchError: unknown, unreadable, or with a key or value that is not understood.
    """
    file = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if not file.is_file():
        if name.endswith(".toml"):
            raise BenchError("no such suite file", where=file)
        raise did_you_mean("suite", name, names())
    if file.stem in names() and file.resolve().parent != _FOLDER:
        raise BenchError(f"there is a built-in suite {file.stem!r}", where=file, mend="give your file another name")
    return parse(file.stem, read_toml(file), file)


def parse(name: str, data: dict[str, Any], where: Path | str) -> Suite:
    """A suite from parsed TOML."""
    return validate(Suite, {"name": name, **data}, where)


def read_toml(file: Path) -> dict[str, Any]:
    """Raises BenchError: unreadable or not TOML (with the line)."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BenchError(f"cannot read TOML: {error}", where=file) from error


def validate(model: type[M], data: Any, where: Path | str) -> M:
    """Pydantic validation whose first failure is one clear line.

    Raises:
        BenchError: naming the key, what is wrong with it, and the file.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or model.__name__
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise BenchError(
                f"unknown key {key!r}{more}", where=where, mend="remove it or mend its spelling"
            ) from error
        raise BenchError(f"{key}: {first['msg']}{more}", where=where) from error
