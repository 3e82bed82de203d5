"""Numbers that take long to compute and are read often: each is kept under the digest of what it depends on."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import BenchError
from bench.files import atomic
from bench.identity import digest


@dataclass(frozen=True)
class Kept:
    """A folder of arrays; without one, nothing is kept."""

    folder: Path | None = None

    def array(self, key: Any, compute: Callable[[], ArrayLike]) -> NDArray[np.float64]:
        """What was computed for the same ``key`` (plain JSON) before, or is now.

        A file that cannot be read is made again; where none can be written, the number is only returned.
        """
        file = self.folder / f"{digest(key, 32)}.npz" if self.folder else None
        if file is not None and file.is_file():
            with contextlib.suppress(OSError, ValueError, EOFError, LookupError, zipfile.BadZipFile):
                return _read(file)
        made = np.asarray(compute(), dtype=np.float64)
        if file is not None:
            with contextlib.suppress(BenchError), atomic(file, "wb") as out:
                np.savez(out, allow_pickle=False, values=made)
        return made


def _read(file: Path) -> NDArray[np.float64]:
    with np.load(file, allow_pickle=False) as arrays:  # its checksums find what is damaged
        found: NDArray[np.float64] = arrays["values"]
    return found
