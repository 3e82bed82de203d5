"""Work on items by number in several processes that end with this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from bench.data.loader import deafen, end_workers
from bench.errors import BenchError


def in_processes(work: Any, numbers: Sequence[int], workers: int, where: Path) -> Iterator[Any]:
    """``work[number]`` of each number, in that order, by ``workers`` processes (0: this one).

    ``work`` gives a BenchError back rather than raise it, which is then raised here, without the worker's traceback.

    Raises:
        BenchError: what ``work`` gave back, or a process died; ``where`` says in which undertaking.
    """
    # DataLoader's processes notice when this one is killed
    loader: DataLoader[Any] = DataLoader(
        work,  # indexing is all it needs
        sampler=numbers,
        batch_size=None,
        num_workers=min(workers, len(numbers)),
        worker_init_fn=deafen,
        prefetch_factor=1 if workers and numbers else None,
    )
    items = iter(loader)
    try:
        for item in items:
            if isinstance(item, BenchError):
                raise item
            yield item
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise BenchError(
            f"a worker process died: {error}", where=where, mend="run it again: it goes on where it was"
        ) from error
    finally:
        end_workers(items)
