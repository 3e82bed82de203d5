"""What the loop trains: a :class:`Task`. Pretext tasks and probes are tasks, so there is one loop, one resume."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.data.batch import Batch
from bench.training import optim

__all__ = ["Batch", "Loss", "Step", "Task"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from bench.data.base import Dataset, Sample
    from bench.training.recipe import Optimiser, Recipe


@dataclass(frozen=True)
class Step:
    """Where training stands: ``update`` of ``updates`` in all, in ``epoch`` (all counted from 0)."""

    epoch: int
    update: int
    updates: int

    @property
    def done(self) -> float:
        """The fraction of training that is done, in [0, 1)."""
        return self.update / self.updates


@dataclass
class Loss:
    """A scalar to minimise, and scalars to watch (means over the batch)."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Task(nn.Module):
    """Everything the loop asks of what it trains. Randomness comes only from the generators it is handed."""

    def setup(self, dataset: Dataset) -> None:
        """First of all, in every process and after every restart: modules and buffers whose shape depends on the
        data (a classifier over its classes, a target for each image). Weights come from torch's seeded global
        generator; a restart then loads the checkpoint over them."""

    def prepare(self, dataset: Dataset, generator: torch.Generator) -> None:
        """Once, before the first update, and never after a restart: priors, targets, data-dependent
        initialisation; kept in parameters and buffers, so checkpointed. ``generator`` is on the CPU."""

    def view(self, sample: Sample, generator: np.random.Generator) -> Any:
        """In a loader's worker: one sample -> tensors to collate. The generator is a pure function of
        (seed, epoch, sample index). Keep per-image Python work to decode and crop; leave pixels uint8."""
        raise NotImplementedError

    def parameters_of(self) -> dict[str, Iterable[Parameter]]:
        """The parameters of each optimiser, by the names that :meth:`optimisers` gives."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def optimisers(self, recipe: Recipe) -> dict[str, Optimiser]:
        """The optimisers by name: the recipe's; overridden where an option of the task adds one."""
        return recipe.optimisers()

    def optimiser_of(self, name: str, spec: Optimiser, parameters: Iterable[Parameter]) -> Optimizer:
        """The optimiser of that name; overridden by probes, which sweep rates."""
        return optim.build(spec, parameters)

    def losses(self, batch: Batch, step: Step, generator: torch.Generator) -> Iterator[tuple[str, Loss]]:
        """(optimiser name, loss), one an optimiser step, in order; most tasks yield one.

        Code after a ``yield`` runs when that optimiser has stepped. The generator (on the device) and torch's
        global ones are reseeded from (seed, update, rank) before each update.
        """
        raise NotImplementedError

    def order(self, epoch: int, size: int, generator: torch.Generator) -> Tensor:
        """int64: the sample indices of an epoch, in order; a permutation unless overridden."""
        return torch.randperm(size, generator=generator)

    def on_epoch_start(self, epoch: int, embed: Callable[..., Tensor]) -> None:
        """Before each epoch, in every process: re-assign targets, say. torch's global generators are seeded alike.

        ``embed(function, view=None, only=None)`` passes the data set, or the samples at the positions ``only``,
        through ``function(batch) -> (B, D)`` without gradients and returns (N, D) on the CPU, in data-set order:
        float16 where the function gives that (a million images need the memory), else float32."""
