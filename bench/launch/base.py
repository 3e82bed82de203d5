"""What a launcher is: something that gets runs executed. It is handed run ids and paths, never a closure."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """Runs to execute, parents before children; their folders and specs are on disk."""

    runs: Path
    ids: tuple[str, ...]
    data: Path
    cache: Path
    workers: int | None
    """Loader processes; None: by the cores of the machine that executes."""
    checkpoint_seconds: float
    micro_batch: int | None = None


class Launcher(ABC):
    """``inline``, ``local``, or a cluster's profile."""

    detached: bool
    """Whether ``launch`` returns before the runs are done."""

    @abstractmethod
    def launch(self, work: Work, say: Callable[[str], None]) -> list[str]:
        """Execute or submit; ``say`` prints one line. Returns the ids of the runs that failed (none if detached)."""


def loaders(asked: int | None) -> int:
    """Loader processes: as many as asked for, else one for each core but one, at most 8."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(8, int(os.environ.get("SLURM_CPUS_PER_TASK", cores)) - 1))


def jobs_folder(runs: Path) -> Path:
    """What jobs are to do, and what they printed."""
    return runs / ".jobs"
