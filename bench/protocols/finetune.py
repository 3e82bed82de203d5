"""Fine-tuning from pretrained weights, the settings side by side: what the downstream protocols share.

Weights are prepared (:mod:`bench.protocols.transfer`), a fresh output layer is put on, and every setting trains its own
copy of the net, all on the same images. Nothing is chosen: one rate, all of train, last iteration. ``test`` is looked
at once, at the end, by the same views in all runs.

A protocol of this kind is a :class:`Downstream` with a method ``measure``, a task that is :class:`Nets`, and words that
are :class:`bench.protocols.settings.SideBySide`.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.annotation import AnnotatedDataset
from bench.data.base import Dataset, Sample
from bench.engines.install import require
from bench.errors import BenchError
from bench.files import atomic
from bench.protocols.base import Evidence, Measured, Protocol, ids_digest, same_classes, same_images, text
from bench.protocols.definitions import named
from bench.protocols.transfer import Prepared, hold_statistics_, images, prepared
from bench.suite import validate
from bench.training import loop
from bench.training.device import derive
from bench.training.task import Batch, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch.nn import Parameter

    from bench.backbones.base import Backbone
    from bench.protocols.definitions import Variant
    from bench.protocols.settings import Setting, SideBySide
    from bench.runfolder import Attempt
    from bench.training.loop import Execution
    from bench.training.recipe import Recipe


class Downstream(Protocol):
    """Columns ``<metric>@<setting>``. Subclass it; give literals, ``measure``, ``columns`` and ``contradicted``."""

    schema: str
    """``module:class`` of its words, a subclass of :class:`bench.protocols.settings.SideBySide`. A literal."""
    engine: ClassVar[str] = ""
    """The third system whose models are trained, as :func:`bench.engines.install.require` calls it; empty: none."""
    truth: ClassVar[str] = "annotations"
    """What it needs of a data set beside images, for the message to whoever has none."""
    example: ClassVar[str] = "voc2007"
    """A data set that has it."""

    spec: SideBySide[Any]
    """The variant's definition in those words; a subclass says which."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.spec = validate(named(self.schema), variant.definition, f"{variant.protocol}, {variant.name}")

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
        """Prepare the weights, train every setting to its end, look at ``test`` once.

        Raises:
            BenchError: the engine is missing; a data set without annotations, or with other classes; the backbone
                cannot be prepared; what :meth:`measure` raises.
        """
        if self.engine:
            require(self.engine)
        known = self.annotated(train), self.annotated(test)
        same_classes(train, test)
        return self.measure(Evaluation(self.spec, backbone, *known, method, seed, fabric, attempt, how))

    @abstractmethod
    def measure(self, run: Evaluation) -> Measured:
        """From ``run.prepared()``, ``run.fit(task)`` and ``run.over_test(task, ...)`` to :meth:`measured`."""

    def recipe(self, size: int) -> Recipe:
        """The definition in the words of the loop, for so many training images; one optimiser a setting."""
        return self.spec.recipe(size)

    def names(self, test: Dataset) -> Evidence:
        """``settings`` and ``classes``, without which no evidence is complete."""
        return {"settings": np.array(list(self.spec.settings)), "classes": np.array(self.classes(test))}

    @staticmethod
    def measured(evidence: Evidence, test: Dataset, training: dict[str, Any]) -> Measured:
        """The evidence, tied to the test images, of what was not chosen among anything."""
        selection = {"rule": "none: one rate, all of train, last iteration", "n": 0, "heldout": {}}
        return Measured({**evidence, "ids_sha256": text(ids_digest(test.ids))}, selection, training)

    @classmethod
    def contradictions(cls, evidence: Evidence, test: Dataset) -> list[str]:
        """The images, the classes, and what :meth:`contradicted` finds."""
        found = same_images(evidence, test)
        if not found and evidence["classes"].tolist() != cls.classes(test):
            found = [f"the evidence speaks of other classes than {test.name}"]
        return found or cls.contradicted(evidence, cls.annotated(test))

    @staticmethod
    @abstractmethod
    def contradicted(evidence: Evidence, test: AnnotatedDataset) -> list[str]:
        """What in the evidence cannot be true of these images, whose ids and classes it has."""

    @staticmethod
    def classes(test: Dataset) -> list[str]:
        """Those that the evidence speaks of, in order."""
        return list(test.classes)

    @classmethod
    def annotated(cls, dataset: Dataset) -> AnnotatedDataset:
        """The same; raises BenchError: nothing but images is known of it."""
        if not isinstance(dataset, AnnotatedDataset):
            mend = f"bind the role {cls.role} to a data set such as {cls.example}"
            raise BenchError(f"{dataset.name} has no {cls.truth}", mend=mend)
        return dataset


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on which data, and how it is executed."""

    spec: SideBySide[Any]
    backbone: Backbone
    train: AnnotatedDataset
    test: AnnotatedDataset
    method: str
    """How the backbone got its weights."""
    seed: int
    fabric: Fabric
    attempt: Attempt
    how: Execution

    def prepared(self) -> Prepared:
        """The weights, ready to be fine-tuned. What is put on them then starts as torch's global generator has it.

        Raises:
            BenchError: as :func:`bench.protocols.transfer.prepared`.
        """
        words, dice = self.spec.transfer, torch.Generator().manual_seed(derive(self.seed, "transfer"))
        seen = images(self.train, self.backbone, words, dice)
        ready = prepared(self.backbone.to(self.fabric.device), seen, words, method=self.method, generator=dice)
        torch.manual_seed(derive(self.seed, "output"))
        return ready

    def fit(self, task: Nets) -> dict[str, Any]:
        """Train every setting to its end; what the loop tells of it."""
        return loop.train(
            task,
            self.train,
            self.spec.recipe(len(self.train)),
            seed=self.seed,
            fabric=self.fabric,
            attempt=self.attempt,
            how=self.how,
            updates=self.spec.iterations,
        )

    def over_test(self, task: Nets, function: Callable[[Batch], Tensor], batch: int) -> NDArray[np.float32]:
        """(N, ...): ``function`` over the task's views of the test images, ``batch`` of them at once."""
        return loop.embed(
            task,
            self.test,
            function,
            task.test_view,
            seed=0,  # all runs are tested on the same crops
            fabric=self.fabric,
            workers=self.how.workers,
            batch=batch,
        ).numpy()

    def over_processes(self, net: nn.Module) -> nn.Module:
        """The net, whose BatchNorms on several GPUs see the images of all of them."""
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return net

    def note(self, line: str) -> None:
        """A line for people, in the run's log; by the first process."""
        if self.fabric.is_global_zero:
            self.attempt.folder.note(line)

    def write(self, name: str, content: str) -> None:
        """A file in the run's folder; by the first process."""
        if self.fabric.is_global_zero:
            self.attempt.guard()
            with atomic(self.attempt.folder.path / name) as file:
                file.write(content)


class Nets(Task):
    """Every setting's own copy of a net, trained on the same images by its own optimiser.

    Args:
        start: the net that all settings start from.
        settings: by name.
        freeze: called with each copy and its setting's ``frozen``: what learns nothing in it.
        fixed: whether BatchNorms use the running statistics of pretraining, also in what learns.
    """

    def __init__(
        self,
        start: nn.Module,
        settings: Mapping[str, Setting],
        freeze: Callable[[Any, tuple[str, ...]], None],
        *,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        self.fixed, self.nets = fixed, nn.ModuleDict()
        for name, setting in settings.items():
            self.nets[name] = net = copy.deepcopy(start)
            freeze(net, setting.frozen)

    def train(self, mode: bool = True) -> Self:
        """Training mode but for the BatchNorms whose running statistics do not move."""
        super().train(mode)
        hold_statistics_(self, all_of_them=self.fixed)
        return self

    def test_view(self, sample: Sample, generator: np.random.Generator) -> Any:
        """As :meth:`view`, of a test image."""
        raise NotImplementedError

    def parameters_of(self) -> dict[str, Iterable[Parameter]]:
        """One optimiser a setting."""
        return {name: [p for p in net.parameters() if p.requires_grad] for name, net in self.nets.items()}
