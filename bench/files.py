"""Writing files so that a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bench.errors import BenchError


@contextlib.contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on a clean exit flush it to disk and rename it over ``path``.

    Raises:
        BenchError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise writing_failed(path, error) from error
    temporary = Path(name)
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise writing_failed(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def writing_failed(path: Path, error: OSError) -> BenchError:
    """The one-line error for a write that did not go through."""
    mend = {
        errno.ENOSPC: "free some space, then run the same command again: it goes on where it was",
        errno.EDQUOT: "free some of your quota, then run the same command again",
        errno.EACCES: "choose a folder you may write to",
        errno.EROFS: "choose a folder you may write to",
    }.get(error.errno or 0)
    return BenchError(f"cannot write: {error.strerror or error}", where=path, mend=mend)


def write_json(path: Path, value: Any) -> None:
    """Atomically write indented JSON, keys in the order given, NaN refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as file:
        file.write(text)


def read_json(path: Path) -> Any:
    """Raises BenchError: missing, or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError("no such file", where=path) from error
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read JSON: {error}", where=path) from error


def canonical(value: Any) -> str:
    """The one JSON text of a value, for hashing: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
