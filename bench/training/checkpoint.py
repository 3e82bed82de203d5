"""Saving and reading the state of training: atomically, and without unpickling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.errors import BenchError
from bench.files import atomic


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the old file stays until the new one is complete.

    Raises:
        BenchError: the disk is full or the folder cannot be written.
    """
    try:
        with atomic(path, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's writer reports a full disk so
        raise BenchError(f"cannot write: {error}", where=path, mend="is the disk full?") from error


def load(path: Path) -> dict[str, Any] | None:
    """The state on the CPU, or None where there is none.

    Raises:
        BenchError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch's reader raise many kinds
        raise BenchError(
            f"checkpoint cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}",
            where=path,
            mend="delete it: the run then starts again from its beginning",
        ) from error
