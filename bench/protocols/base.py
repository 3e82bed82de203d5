"""What a protocol is: how a backbone is measured. Subclass :class:`Protocol`, and the protocol exists.

``<name>.py`` says how, ``<name>.toml`` says what: everything that identifies each variant. A protocol turns a
backbone and data into *evidence*; the numbers are computed from the stored evidence alone, so that verifying a
result is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bench.backbones.base import Backbone
    from bench.data.base import Dataset
    from bench.data.pack import Geometry
    from bench.protocols.definitions import Variant
    from bench.runfolder import Attempt
    from bench.training.loop import Execution

Evidence = dict[str, NDArray[Any]]
Column = dict[str, Any]
"""value, low, high, n, chance, unit."""


@dataclass
class Measured:
    """What an evaluation leaves behind."""

    evidence: Evidence
    selection: dict[str, Any]
    """The rule, and what was chosen on which held-out scores."""
    training: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class Protocol(ABC):
    """One protocol under one variant."""

    title: str
    citation: str
    version: int
    """Bumped whenever a change of the code can move a number."""
    role: str
    """The data role that the suite binds to a data set: ``imagenet``, ``voc07``, ..."""
    by_stage: bool = False
    """Whether its columns are those of the backbone's stages: ``top1@conv3``. A literal."""
    statistic: str = ""
    """``module:function`` that tells what a column is, in its unit, under resamples of the test examples, as those of
    :mod:`bench.protocols.statistics` do; by it tables test rows against one another. A literal; its module imports no
    torch. Empty: the protocol's rows are never tested."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.definition = variant.definition

    def geometry(self, backbone: Backbone) -> Geometry | None:
        """The fixed resize that every view of an image starts with, so that a packed store of it will do."""
        return None

    @abstractmethod
    def evaluate(
        self,
        backbone: Backbone,
        train: Dataset,
        test: Dataset,
        *,
        method: str,
        seed: int,
        fabric: Fabric,
        attempt: Attempt,
        how: Execution,
    ) -> Measured:
        """Measure. Everything is chosen on ``train``; ``test`` is looked at once, at the end.

        ``method`` is how the backbone got its weights: some definitions prepare the weights of all rows but Random.
        """

    @staticmethod
    @abstractmethod
    def columns(evidence: Evidence) -> dict[str, Column]:
        """The numbers, from rounded evidence alone: {``top1@conv3``: {value, low, high, n, chance, unit}}."""

    @staticmethod
    @abstractmethod
    def contradictions(evidence: Evidence, test: Dataset) -> list[str]:
        """What in the evidence cannot be true of the test data, one line each (level *checked*)."""


def ids_digest(ids: list[str]) -> str:
    """sha256 over the ids in canonical order: ties evidence to the images it speaks of."""
    import hashlib

    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def same_images(evidence: Evidence, test: Dataset) -> list[str]:
    """Whether the evidence speaks of these test images, in this order."""
    if str(evidence["ids_sha256"]) != ids_digest(test.ids):
        return [f"the evidence speaks of other images than {test.name} ({len(test.ids)} images)"]
    return []


def same_classes(train: Dataset, test: Dataset) -> None:
    """Raises BenchError: what is learnt on one data set cannot be asked of the other."""
    if train.classes != test.classes:
        raise BenchError(f"{train.name} and {test.name} have different classes")


def text(value: str) -> NDArray[np.str_]:
    """A string as npz keeps it."""
    return np.array(value)
