"""What a launcher is: something that gets runs executed. It is handed run ids and paths, never a closure."""

from __future__ import annotations

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
    workers: int
    checkpoint_seconds: float
    micro_batch: int | None = None


class Launcher(ABC):
    """``inline``, ``local``, or a cluster's profile."""

    detached: bool
    """Whether ``launch`` returns before the runs are done."""

    @abstractmethod
    def launch(self, work: Work, say: Callable[[str], None]) -> list[str]:
        """Execute or submit; ``say`` prints one line. Returns the ids of the runs that failed (none if detached)."""
