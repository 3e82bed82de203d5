"""From a data set and a view to batches: sharded over processes, cut into micro-batches, loaded by workers.

What a sample's view draws is a pure function of (seed, epoch, sample index). So batches do not depend on the
number of workers, and an epoch can be taken up at any update. A view runs in a worker on the task as it was when
the workers started: state that moves while training belongs in ``losses``, looked up by ``batch.index``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from bench.data.base import Dataset, Sample
from bench.data.batch import Batch
from bench.errors import BenchError

View = Callable[[Sample, np.random.Generator], Any]
"""One sample -> tensors or numbers, or tuples or dicts of such."""


class Loader:
    """Batches of views of a data set. Use it in a ``with`` block, or ``close`` it: it owns processes.

    An epoch's order is cut into global batches of ``batch`` samples (the whole data set where it is smaller); of
    each, process ``rank`` of ``world`` takes a contiguous share, and cuts it into equal micro-batches of at most
    ``micro_batch``. With ``drop_last`` all batches are full; without it the last may be short, and a process whose
    share is then empty gets nothing. ``workers`` processes load (0: this one), and live from epoch to epoch.

    Raises:
        BenchError: an empty data set; with ``drop_last``, a batch with fewer samples than processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        view: View,
        *,
        seed: int,
        batch: int,
        micro_batch: int | None = None,
        workers: int,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        pin_memory: bool = False,
    ) -> None:
        self.size = len(dataset)
        self.batch = min(batch, self.size)
        self.micro_batch, self.rank, self.world, self.drop_last = micro_batch, rank, world, drop_last
        if not self.size:
            raise BenchError(f"{dataset.name} has no samples")
        if drop_last and self.batch < world:
            raise BenchError(
                f"a batch of {self.batch} cannot be shared by {world} processes",
                where=dataset.name,
                mend="use fewer processes, or a larger batch or data set",
            )
        self._work = _Work()
        self._loader: DataLoader[Any] = DataLoader(
            _Views(dataset, view, seed),
            sampler=self._work,
            batch_size=None,
            collate_fn=_as_is,
            num_workers=workers,
            worker_init_fn=deafen,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # without one, every epoch would move torch's global generator
        )

    @property
    def updates_per_epoch(self) -> int:
        """Global batches in an epoch; at least one."""
        return self.size // self.batch if self.drop_last else -(-self.size // self.batch)

    @property
    def micros_per_update(self) -> int:
        """Micro-batches that this process gets of a full batch."""
        return len(self._share(torch.empty(self.batch)))

    def epoch(self, epoch: int, order: Tensor, start: int = 0) -> Iterator[Batch]:
        """The micro-batches of an epoch from global batch ``start`` on. One epoch at a time: a new one ends the old.

        ``order`` is int64 (N,), the same in all processes. A corrupt image, say, raises the view's or the data
        set's own BenchError.

        Raises:
            ValueError: ``order`` has another length than the data set.
            BenchError: also when a worker was killed.
        """
        if len(order) != self.size:
            raise ValueError(f"an epoch's order has {self.size} indices, not {len(order)}")
        return self._load(epoch, order[: self.updates_per_epoch * self.batch], start)

    def in_order(self) -> Iterator[Batch]:
        """Every sample once, in data-set order, as of epoch 0; nothing is dropped."""
        return self._load(0, torch.arange(self.size), 0)

    def close(self) -> None:
        """End the workers. The loader may be used again: it starts new ones."""
        iterator: Any = self._loader._iterator
        self._loader._iterator = None
        if iterator is not None:
            end_workers(iterator)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _load(self, epoch: int, order: Tensor, start: int) -> Iterator[Batch]:
        batches = order.split(self.batch)[start:]
        self._work.items = [(epoch, micro.tolist()) for batch in batches for micro in self._share(batch)]
        return _unpack(iter(self._loader))

    def _share(self, batch: Tensor) -> list[Tensor]:
        """This process's micro-batches of a global batch. All processes get equally many where they can."""
        mine = batch.tensor_split(self.world)[self.rank]
        largest = -(-len(batch) // self.world)
        pieces = -(-largest // (self.micro_batch or largest))
        return [piece for piece in mine.tensor_split(pieces) if len(piece)]


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch: Philox (Salmon et al. 2011) under the key (seed, epoch, index).

    Distinct keys give independent streams: seed < 2^64, epoch < 2^24, index < 2^40.
    """
    key = np.array((seed, epoch << 40 | index), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(_Key(key)))  # type: ignore[arg-type]  # the stubs lack it


def collate(views: list[Any]) -> Any:
    """Tensors (...) -> one tensor (B, ...); tuples and dicts item by item; numbers -> a tensor (B,)."""
    match views[0]:
        case Tensor():
            return torch.stack(views)
        case dict() as first:
            return {key: collate([view[key] for view in views]) for key in first}
        case tuple() | list():
            return tuple(collate(list(items)) for items in zip(*views, strict=True))
        case int() | float():
            return torch.tensor(views)
        case other:
            raise TypeError(f"a view gives tensors, numbers, tuples or dicts, not {type(other).__name__}")


class _Key(ISeedSequence):
    """Hands Philox its key as it is; ``Philox(key=...)`` takes three times as long, for it also asks for entropy."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self.words


class _Views(TorchDataset[Any]):
    """What a worker does with one item of work: a collated micro-batch, or the BenchError that it met."""

    def __init__(self, dataset: Dataset, view: View, seed: int) -> None:
        self.dataset, self.view, self.seed = dataset, view, seed

    def __getitem__(self, item: tuple[int, list[int]]) -> tuple[Any, Tensor, Tensor] | BenchError:
        epoch, indices = item
        try:
            samples = [self.dataset[index] for index in indices]
            views = [self.view(s, sample_generator(self.seed, epoch, s.index)) for s in samples]
        except BenchError as error:
            return error  # raised by the main process: DataLoader would wrap it in the worker's traceback
        return collate(views), torch.tensor(indices), torch.tensor([sample.label for sample in samples])


class _Work(Sampler[tuple[int, list[int]]]):
    """The micro-batches to load: (epoch, sample indices) each."""

    items: list[tuple[int, list[int]]] = []

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self.items)


def _unpack(items: Iterator[Any]) -> Iterator[Batch]:
    while True:
        try:
            item = next(items, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise BenchError(
                f"a worker of the loader died: {error}",
                mend="usually memory (or shared memory, /dev/shm) ran out: use fewer workers or a smaller micro-batch",
            ) from error
        if item is None:
            return
        if isinstance(item, BenchError):
            raise item
        yield Batch(*item)


def _as_is(item: Any) -> Any:
    return item


def end_workers(iterator: Any) -> None:
    """End the processes of a DataLoader's iterator, which may have none."""
    if workers := getattr(iterator, "_workers", []):
        iterator._shutdown_workers()
        for worker in workers:
            worker.kill()  # one that hangs in a view: it does not hear SIGTERM


def deafen(worker: int) -> None:
    """In a new worker: leave Ctrl-C and the signals of a batch system to the main process, which ends its workers."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
