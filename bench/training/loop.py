"""The one training loop: pretext tasks and probes go through it, so there is one resume and one log.

Nothing random is stored. The loader's randomness is a function of (seed, epoch, sample index); before every
update torch's generators are seeded from (seed, update, rank). A run that was killed and resumed from its
checkpoint therefore ends with the same bits as one that was not (same device, same number of threads).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from bench.data.base import Dataset
from bench.data.images import subset
from bench.data.loader import Loader
from bench.errors import BenchError
from bench.runfolder import Attempt
from bench.training import checkpoint, optim
from bench.training.device import average_gradients, derive, total
from bench.training.recipe import Recipe
from bench.training.task import Batch, Loss, Step, Task

CURVE_POINTS = 200


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; its checkpoint is written."""


def _silent(done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class Execution:
    """How a run is executed: never what it computes."""

    workers: int = 1
    micro_batch: int | None = None
    """Images a process puts through the network at once; None: its whole share of the recipe's batch."""
    checkpoint_seconds: float = 60.0
    progress: Callable[[int, int], None] = _silent
    stop: Callable[[], bool] = field(default=lambda: False)


@dataclass
class _Position:
    """Where training stands; what a checkpoint holds beside weights and optimisers."""

    epoch: int = 0
    offset: int = 0
    """Updates done in this epoch."""
    update: int = 0
    """Updates done in all."""
    seconds: float = 0.0
    order: Tensor | None = None
    """The sample indices of an epoch under way."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Metrics summed since the last record of the log."""
    counted: int = 0


def train(
    task: Task,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    fabric: Fabric,
    attempt: Attempt,
    how: Execution,
    updates: int | None = None,
) -> dict[str, Any]:
    """Train ``task`` to the end of the recipe, from the run's checkpoint if it has one.

    Args:
        updates: the budget in updates, where a paper counts so; None: the recipe's epochs.

    Returns:
        What the run's record keeps: updates, epochs, batch, images a second, and the curve (at most 200 points).

    Raises:
        BenchError: the loss is not finite (the last good checkpoint is kept), or a file cannot be read or written.
        Interrupted: ``how.stop`` said so; the state is saved.
    """
    return _Training(task, dataset, recipe, seed, fabric, attempt, how, updates).run()


class _Training:
    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        recipe: Recipe,
        seed: int,
        fabric: Fabric,
        attempt: Attempt,
        how: Execution,
        updates: int | None,
    ) -> None:
        self.task, self.dataset, self.recipe, self.seed = task, dataset, recipe, seed
        self.fabric, self.attempt, self.how = fabric, attempt, how
        self.path = attempt.folder.path / "checkpoint.pt"
        self.generator = torch.Generator(fabric.device)
        self.loader = Loader(
            dataset,
            task.view,
            seed=seed,
            batch=recipe.batch,
            micro_batch=how.micro_batch,
            workers=how.workers,
            rank=fabric.global_rank,
            world=fabric.world_size,
            pin_memory=fabric.device.type == "cuda",
        )
        self.batch = self.loader.batch
        if self.batch % fabric.world_size:
            raise BenchError(
                f"a batch of {self.batch} cannot be shared equally by {fabric.world_size} processes",
                where=attempt.folder.id,
                mend="use a number of processes that divides it",
            )
        self.updates = updates or recipe.epochs * self.loader.updates_per_epoch
        self.epochs = round(updates / self.loader.updates_per_epoch, 4) if updates else recipe.epochs
        self.every = max(1, -(-self.updates // CURVE_POINTS))

    def run(self) -> dict[str, Any]:
        self.task.to(self.fabric.device).to(memory_format=torch.channels_last)
        self._start()
        self.clock = self.saved = time.monotonic()
        try:
            while self.at.update < self.updates:
                self._epoch()
        finally:
            self.loader.close()
        if self.saved_update != self.at.update:
            self._save()
        return self._record()

    def _start(self) -> None:
        """Prepare a fresh task, or restore the run's checkpoint."""
        self.at = _Position()
        state = checkpoint.load(self.path)
        if state is None:
            torch.manual_seed(derive(self.seed, "prepare"))
            self.task.prepare(self.dataset, torch.Generator().manual_seed(derive(self.seed, "prepare")))
            self.task.to(self.fabric.device)  # what it made anew
        else:
            self._restore(state["task"])
        self.specs = specs = self.task.optimisers(self.recipe)
        self.parameters = {name: list(those) for name, those in self.task.parameters_of().items()}
        if self.parameters.keys() != specs.keys():
            raise BenchError(
                f"the recipe has the optimisers {sorted(specs)}, parameters_of gives {sorted(self.parameters)}",
                where=type(self.task).__name__,
            )
        self.optimisers: dict[str, Optimizer] = {
            name: self.task.optimiser_of(name, spec, self.parameters[name]) for name, spec in specs.items()
        }
        if state is not None:
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
            self.at = _Position(**state["at"])
            self.attempt.before = self.at.seconds
            self.at.sums = {k: v.to(self.fabric.device) for k, v in self.at.sums.items()}
        self.saved_update = self.at.update if state is not None else -1
        if self.fabric.is_global_zero:
            self.attempt.truncate_log(self.at.update)

    def _restore(self, state: dict[str, Tensor]) -> None:
        try:
            self.task.load_state_dict(state)
        except RuntimeError as error:
            raise BenchError(
                f"the checkpoint is not of this task: {' '.join(str(error).split())[:200]}",
                where=self.path,
                mend="delete it: the run then starts again from its beginning",
            ) from error

    def _epoch(self) -> None:
        at = self.at
        if at.offset == 0:
            torch.manual_seed(derive(self.seed, "epoch", at.epoch))
            self.task.on_epoch_start(at.epoch, self._embed)
            seeded = torch.Generator().manual_seed(derive(self.seed, "order", at.epoch))
            at.order = self.task.order(at.epoch, len(self.dataset), seeded)
        assert at.order is not None
        self.task.train()
        batches = self.loader.epoch(at.epoch, at.order, start=at.offset)
        while at.offset < self.loader.updates_per_epoch and at.update < self.updates:
            micros = [next(batches) for _ in range(self.loader.micros_per_update)]
            self._update(micros, Step(at.epoch, at.update, self.updates))
            at.offset += 1
            at.update += 1
            at.counted += 1
            if at.offset == self.loader.updates_per_epoch:
                at.epoch, at.offset, at.order = at.epoch + 1, 0, None
            self._after_update()
            if at.offset == 0:
                return

    def _update(self, micros: list[Batch], step: Step) -> None:
        """One round of optimiser steps over the micro-batches of one batch."""
        torch.manual_seed(derive(self.seed, "update", step.update, self.fabric.global_rank))
        self.generator.manual_seed(derive(self.seed, "device", step.update, self.fabric.global_rank))
        streams = [self.task.losses(micro.to(self.fabric.device), step, self.generator) for micro in micros]
        while (name := self._backward(streams, micros)) is not None:
            self._step(name, step)

    def _backward(self, streams: list[Iterator[tuple[str, Loss]]], micros: list[Batch]) -> str | None:
        """Gradients of the next loss of every micro-batch; the optimiser it belongs to, None after the last."""
        name = None
        for stream, micro in zip(streams, micros, strict=True):
            with self.fabric.autocast():
                item = next(stream, None)
            if item is None:
                return None
            if name is None:
                name = item[0]
                self.optimisers[name].zero_grad()
            # means over micro-batches and processes, weighted by their sizes: the mean over the batch
            weight = len(micro) / self.batch
            (item[1].total * (weight * self.fabric.world_size)).backward()
            self._count("loss" if name == "main" else f"loss_{name}", item[1].total, weight)
            for metric, value in item[1].metrics.items():
                self._count(metric, value, weight)
        return name

    def _step(self, name: str, step: Step) -> None:
        spec, parameters = self.specs[name], self.parameters[name]
        average_gradients(self.fabric, parameters)
        if spec.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, spec.clip)
        for group in self.optimisers[name].param_groups:
            group["lr"] = optim.rate(spec, step.done) * group.get("times", 1.0)
        self.optimisers[name].step()

    def _count(self, name: str, value: Tensor, weight: float) -> None:
        summand = value.detach().float() * weight
        self.at.sums[name] = self.at.sums[name] + summand if name in self.at.sums else summand

    def _after_update(self) -> None:
        at = self.at
        if at.update % self.every == 0 or at.update == self.updates:
            self._log()
        self.how.progress(at.update, self.updates)
        stop = self._agree(self.how.stop())
        if stop or self._agree(time.monotonic() - self.saved > self.how.checkpoint_seconds):
            self._save()
        if stop and at.update < self.updates:
            raise Interrupted

    def _agree(self, mine: bool) -> bool:
        """What the first process thinks: all must save at the same update."""
        return mine if self.fabric.world_size == 1 else bool(self.fabric.broadcast(mine, src=0))

    def _means(self) -> dict[str, float]:
        names = sorted(self.at.sums)
        if not names:
            return {}
        sums = total(self.fabric, torch.stack([self.at.sums[name] for name in names]))
        values = (sums / self.at.counted).tolist()
        means = dict(zip(names, values, strict=True))
        bad = [name for name, value in means.items() if value != value or value in (float("inf"), float("-inf"))]
        if bad:
            raise BenchError(
                f"{bad[0]} is not finite by update {self.at.update}",
                where=self.attempt.folder.id,
                mend="lower the learning rate or clip the gradient; the last good checkpoint is kept",
            )
        return means

    def _log(self) -> None:
        means = self._means()
        at = self.at
        seconds = at.seconds + time.monotonic() - self.clock
        record = {
            "update": at.update,
            "epoch": round(at.update / self.loader.updates_per_epoch, 4),
            "lr": {n: o.param_groups[0]["lr"] for n, o in self.optimisers.items()},
            **{name: float(f"{value:.6g}") for name, value in means.items()},
            "seconds": round(seconds, 1),
        }
        if self.fabric.is_global_zero:
            self.attempt.write_log(record)
        at.sums, at.counted = {}, 0

    def _save(self) -> None:
        self._means()
        if not all(bool(p.isfinite().all()) for p in self.task.parameters()):
            raise BenchError(
                f"the weights are not finite at update {self.at.update}",
                where=self.attempt.folder.id,
                mend="lower the learning rate or clip the gradient; the last good checkpoint is kept",
            )
        self.at.seconds += time.monotonic() - self.clock
        self.clock = time.monotonic()
        if self.fabric.is_global_zero:
            self.attempt.guard()
            checkpoint.save(
                self.path,
                {
                    "task": self.task.state_dict(),
                    "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
                    "at": vars(self.at),
                },
            )
        self.saved, self.saved_update = time.monotonic(), self.at.update

    def _embed(
        self,
        function: Callable[[Batch], Tensor],
        view: Callable[..., Any] | None = None,
        only: Tensor | None = None,
    ) -> Tensor:
        """(N, D) on the CPU, in data-set order: ``function`` over the data set or a part of it, in eval mode."""
        return embed(
            self.task,
            self.dataset if only is None else subset(self.dataset, only.numpy()),
            function,
            view or self.task.view,
            seed=derive(self.seed, "embed", self.at.epoch),
            fabric=self.fabric,
            workers=self.how.workers,
            batch=self.how.micro_batch or self.batch,
        )

    def _record(self) -> dict[str, Any]:
        curve = [{k: v for k, v in record.items() if k != "seconds"} for record in self.attempt.folder.log()]
        images = self.updates * self.batch
        return {
            "epochs": self.epochs,
            "updates": self.updates,
            "batch": self.batch,
            "world_size": self.fabric.world_size,
            "lr": {name: spec.lr for name, spec in self.specs.items()},
            "batch_per_process": self.how.micro_batch or -(-self.batch // self.fabric.world_size),
            "images": images,
            "seconds": round(self.at.seconds, 1),
            "images_per_second": round(images / self.at.seconds, 1) if self.at.seconds else None,
            "curve": curve,
        }


@torch.no_grad()
def embed(
    task: Task,
    dataset: Dataset,
    function: Callable[[Batch], Tensor],
    view: Callable[..., Any],
    *,
    seed: int,
    fabric: Fabric,
    workers: int,
    batch: int,
) -> Tensor:
    """(N, D) on the CPU: ``function`` over the data set in order, once, without gradients, in eval mode.

    The rows are float16 where ``function`` gives that, else float32, and are held once: N * D numbers, no copies.
    """
    was_training = task.training
    task.eval()
    rows: Tensor | None = None
    loader = Loader(
        dataset,
        view,
        seed=seed,
        batch=batch * fabric.world_size,
        workers=workers,
        drop_last=False,
        rank=fabric.global_rank,
        world=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
    )
    try:
        with fabric.autocast():
            for micro in loader.epoch(0, torch.arange(len(dataset))):
                found = function(micro.to(fabric.device))
                found = (found if found.dtype == torch.float16 else found.float()).cpu()
                if rows is None:
                    rows = found.new_zeros(len(dataset), *found.shape[1:])
                rows[micro.index.cpu()] = found
    finally:
        loader.close()
        task.train(was_training)
    return _gather(rows, len(dataset), fabric)


def _gather(rows: Tensor | None, size: int, fabric: Fabric) -> Tensor:
    """The sum over processes of rows that are 0 where another process has them; None: this one has none."""
    if fabric.world_size > 1:
        shapes: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(shapes, None if rows is None else (rows.dtype, rows.shape[1:]))
        dtype, shape = next(found for found in shapes if found)
        rows = torch.zeros(size, *shape, dtype=dtype) if rows is None else rows
        for part in rows.split(65536):
            part.copy_(total(fabric, part.to(fabric.device)))
    assert rows is not None
    return rows
