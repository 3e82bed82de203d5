"""The words that all fine-tuning shares: which weights it starts from, and the settings that train side by side.

A protocol's own words are a subclass of :class:`SideBySide`, and of :class:`Setting` where a setting says more than
what learns and how fast. Every key is obeyed by ``finetune.py`` or ``transfer.py``. Imports no torch.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from bench import registry
from bench.protocols.transfer import Transfer
from bench.suite import Strict
from bench.training.recipe import SGD, MultiStep, Recipe, Schedule


class Setting(Strict):
    """What learns, and how fast: one column group."""

    frozen: tuple[str, ...]
    """Stages, ``trunk`` for all of them, ``fc`` for fc6 and fc7; empty: everything learns."""
    lr: PositiveFloat

    @abstractmethod
    def schedule(self) -> Schedule:
        """How the rate changes, in the words of a recipe."""


class InParts(Strict):
    """The rate drops after each of so many equal parts of training."""

    parts: PositiveFloat
    """The rate drops whenever another 1 / ``parts`` of training is done: 16 are drops every 5,000 of 80,000."""
    gamma: PositiveFloat
    """What each drop multiplies the rate by."""

    def schedule(self) -> MultiStep:
        """In the words of a recipe."""
        return MultiStep.in_parts(self.parts, self.gamma)


S = TypeVar("S", bound=Setting)


def setting_names(settings: dict[str, S]) -> dict[str, S]:
    """The same; raises ValueError: a name cannot be part of a column's, as in ``map@fc6-8``."""
    for name in settings:
        if not name.replace("-", "").isalnum() or name != name.lower():
            raise ValueError(f"a setting is named by lower-case letters, digits and hyphens, not {name!r}")
    return settings


class SideBySide(Strict, Generic[S]):
    """One variant: prepared weights, fine-tuned by SGD in one or more settings at once."""

    deviations: tuple[str, ...]
    """In what the variant differs from what was published; for people, and part of the identity all the same."""
    sides: tuple[PositiveInt, ...]
    """Input sides of the backbones that it measures, and of a suite's usual backbone; empty: any."""
    transfer: Transfer
    batch: PositiveInt
    """Images an update."""
    iterations: PositiveInt
    """Updates."""
    momentum: float = Field(ge=0, lt=1)
    weight_decay: NonNegativeFloat
    settings: Annotated[dict[str, S], Field(min_length=1), AfterValidator(setting_names)]
    """By name, as columns have it: ``fc6-8``, ``all``. Each trains its own copy of the net on the same images."""

    def needs(self) -> tuple[str, ...]:
        """The stages without which a backbone cannot be measured."""
        return ()

    def optimiser(self, setting: S) -> SGD:
        """Of one setting; a variant that says more of SGD adds it."""
        return SGD(setting.lr, self.momentum, self.weight_decay, schedule=setting.schedule())

    def recipe(self, size: int) -> Recipe:
        """The definition in the words of the loop, for so many training images; one optimiser a setting."""
        batch = min(self.batch, size)
        return Recipe(
            epochs=-(-self.iterations // (size // batch)),
            batch=batch,
            optimiser={name: self.optimiser(setting) for name, setting in self.settings.items()},
        )

    def obstacle(self, backbone: str, usual: str) -> str:
        """Why ``backbone`` cannot be measured at a suite whose usual backbone is another; empty where it can."""
        if self.sides and not {registry.shape(name).get("input_side") for name in (backbone, usual)} <= set(self.sides):
            return f"needs {'/'.join(map(str, self.sides))} px"
        for stage in self.needs():
            if stage not in registry.shape(backbone).get("stages", ()):
                return f"{backbone} has no {stage}"
        return self.transfer.obstacle(backbone)
