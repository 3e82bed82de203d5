"""What a method is: how a backbone gets its weights. Subclass :class:`PretextTask`, and the method exists.

The file's name is the method's key. ``title``, ``citation``, ``version``, ``role``, ``needs`` and ``recipe``
are literals: lists, plans and tables read them without importing the module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench import arguments, registry
from bench.backbones.base import Backbone, build
from bench.training.device import derive
from bench.training.recipe import SGD, Adam, Constant, Cosine, Exponential, MultiStep, Poly, Recipe, RMSProp, Table
from bench.training.task import Batch, Loss, Step, Task

if TYPE_CHECKING:
    import numpy as np

    from bench.data.base import Sample

__all__ = [
    "SGD",
    "Adam",
    "Backbone",
    "Batch",
    "Constant",
    "Cosine",
    "Exponential",
    "Loss",
    "MultiStep",
    "Poly",
    "PretextTask",
    "RMSProp",
    "Recipe",
    "Step",
    "Table",
]


class PretextTask(Task):
    """A way to give a backbone its weights.

    The hooks run in this order: ``__init__`` and ``setup`` (in every process; same seed, same weights),
    ``prepare`` (once, before the first update), then for each epoch ``on_epoch_start``, ``order``, ``view``
    (workers), ``losses`` (device); last ``export``. A method without training (the baselines) states
    ``recipe = None`` and works in ``prepare``.
    """

    title: str
    """As tables print it: "Rotation"."""
    citation: str
    """A key of ``tables/references.bib``."""
    version: int
    """Bumped whenever a change can move a number."""
    role: str = "pretext"
    """``pretext``, ``baseline``, or ``reference`` (labels were used: shown, never ranked)."""
    needs: set[str] = {"image"}
    """Of {"image", "label", "clip"}."""
    supports: set[str] = {"alexnet", "resnet", "nin"}
    """The architectures that it runs on, by the names of their files; with all of these, on third parties' too."""
    recipe: Recipe | None
    """The paper's optimiser, schedule, batch and epochs; None: nothing is trained."""
    metric: str = "accuracy"
    """The pretext metric: which of the loss's metrics says how well the task itself is learned; more is better."""
    chance: float | None = None
    """What guessing, or the trivial predictor, scores on it; set in ``__init__`` where it depends on options, in
    ``heldout`` where it depends on the images."""
    heldout_batch: int | None = None
    """Images that ``heldout`` sees at once, for a metric that is no mean over images; None: the recipe's batch."""

    def __init__(self, backbone: Backbone, **options: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def heldout(self, batch: Batch, step: Step, generator: torch.Generator) -> dict[str, Tensor]:
        """What is measured on images that it never saw, means over the batch: its losses and their metrics.

        Overridden where targets belong to the images of the training set. Called in eval mode, without gradients.
        """
        found: dict[str, Tensor] = {}
        for name, loss in self.losses(batch, step, generator):
            found |= {"loss" if name == "main" else f"loss_{name}": loss.total, **loss.metrics}
        return found

    def heldout_view(self, sample: Sample, generator: np.random.Generator) -> Any:
        """What ``heldout`` and ``picture`` see of a sample: as :meth:`view`, unless they need more."""
        return self.view(sample, generator)

    def picture(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """What the task sees and answers, for people: uint8 (rows, columns, 3, h, w), one row an image of the batch.

        None where there is nothing to look at. Called on the trained task, in eval mode, without gradients.
        """
        return None

    def export(self) -> Backbone:
        """The backbone that is measured (Split-Brain merges its halves here)."""
        return self.backbone


def make(method: str, backbone: str, options: dict[str, Any], *, seed: int) -> PretextTask:
    """The task of that method on a fresh backbone, all weights drawn from the seed.

    Raises:
        BenchError: unknown method, backbone or option, an option of another type than the method states, or the method
            does not run on such a backbone.
    """
    cls = registry.entry("methods", method).load()
    registry.refuse_misfit(method, backbone)
    arguments.check(options, cls, f"option of {method}", after=1)
    torch.manual_seed(derive(seed, "weights"))
    return cls(build(backbone), **options)
