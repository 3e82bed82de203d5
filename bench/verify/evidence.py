"""Evidence: finding it, reading it without trusting it, and recomputing the numbers from it."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from bench import results
from bench.errors import BenchError
from bench.protocols.base import Evidence, Protocol
from bench.results import Result

MOST_BYTES = 2**28
"""Of all arrays of one result, unpacked."""
MOST_ARRAYS = 64
_KINDS = "biufU"
"""Truth values, integers, floats, text."""


def find(path: Path, result: Result, releases: Path | None) -> Path | None:
    """The evidence of the result at ``path``: beside it, or among the files of releases; None: not here.

    Raises:
        BenchError: the result names a file elsewhere.
    """
    named = result.evidence.file
    if named != Path(named).name or not named.endswith(".npz") or "\\" in named or not named.isprintable():
        raise BenchError(f"the evidence {named[:80]!r} is not a .npz file beside the result", where=path)
    places = [path.parent / named, *([releases / f"{result.evidence.sha256}.npz"] if releases else [])]
    return next((file for file in places if file.is_file() and not file.is_symlink()), None)


def read(file: Path, sha256: str) -> Evidence:
    """The arrays of an evidence file, whose sha256 must be the one given.

    Raises:
        BenchError: another file, unreadable, larger than ``MOST_BYTES``, or with what evidence never holds: pickled
            objects and structures.
    """
    if file.stat().st_size > MOST_BYTES:
        raise BenchError(f"the evidence is larger than {MOST_BYTES:,} bytes", where=file)
    if results.sha256(file) != sha256:
        raise BenchError("the evidence is not the file that the result names (its sha256 differs)", where=file)
    try:
        with zipfile.ZipFile(file) as archive:
            return _arrays(archive)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BenchError(f"the evidence cannot be read: {error}", where=file) from error


def _arrays(archive: zipfile.ZipFile) -> Evidence:
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(names) > MOST_ARRAYS or len(set(names)) != len(names) or not all(n.endswith(".npy") for n in names):
        raise ValueError("not an archive of arrays")
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise ValueError(f"its arrays would take more than {MOST_BYTES:,} bytes")
    return {member.filename.removesuffix(".npy"): _array(archive.read(member), member.filename) for member in members}


def _array(data: bytes, name: str) -> np.ndarray:
    """One array, once its header is known to promise no more than there is."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of a format that we do not read")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.kind not in _KINDS:
        raise ValueError(f"{name} holds {dtype}, not numbers or text")
    if math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError(f"{name} promises more than it holds")
    stream.seek(0)
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def content(arrays: Evidence) -> str:
    """sha256 over what was measured: all arrays but the name of the run."""
    made = hashlib.sha256()
    for name in sorted(arrays.keys() - {"run"}):
        made.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        made.update(np.ascontiguousarray(arrays[name]).tobytes())
    return made.hexdigest()


def inconsistent(result: Result, protocol: type[Protocol], arrays: Evidence) -> list[str]:
    """Every number that is not what the evidence gives."""
    try:
        columns = protocol.columns(arrays)
    except Exception as error:  # it may hold anything
        return [f"the evidence lacks what {result.protocol.name} needs: {type(error).__name__}: {error}"]
    problems = [f"{name} has no evidence" for name in result.columns.keys() - columns.keys()]
    problems += [f"{name} is missing" for name in columns.keys() - result.columns.keys()]
    for name in sorted(columns.keys() & result.columns.keys()):
        said, shown = result.columns[name].model_dump(), columns[name]
        problems += [
            f"{name}.{key} is {said[key]}, its evidence gives {shown[key]}" for key in said if said[key] != shown[key]
        ]
    return problems
