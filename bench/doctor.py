"""What ``bench doctor`` looks at: everything a run stands on, and how to mend what lacks."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from bench import __version__
from bench.data import catalog
from bench.engines import install
from bench.errors import BenchError
from bench.files import writing_failed
from bench.paths import cache_root, declared

GIB = 2**30
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warn", "fail"]
    """``warn``: something cannot be done here; ``fail``: no run can be done here."""
    found: str
    mend: str = ""
    """What to do; empty where all is well."""


def examine(data_root: Path, runs_root: Path) -> list[Check]:
    """Look at this machine: Python, bench, torch, devices, engines, Slurm, folders, data.

    Takes seconds, most of them for importing torch; writes nothing but the cache's counts of images.
    """
    cache = cache_root(runs_root)
    return [
        _python(),
        _bench(),
        *_torch(),
        *_engines(),
        _slurm(),
        _folder("runs", runs_root, "--runs"),
        *([] if cache.is_relative_to(runs_root) else [_folder("cache", cache, "BENCH_CACHE")]),
        *_shared_memory(Path("/dev/shm")),
        *_data(data_root, cache),
    ]


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()}, {sys.executable}")


def _bench() -> Check:
    project = declared("pyproject.toml")
    return Check("bench", "ok", f"{__version__}, " + (f"checkout {project.parent}" if project.is_file() else "package"))


def _torch() -> list[Check]:
    """Torch with torchvision, then the devices. A pair that does not fit fails at import."""
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        return [Check("torch", "fail", f"does not import: {first}", "install the pair that constraints.txt pins")]
    version = f"{torch.__version__}, torchvision {torchvision.__version__}, CUDA {torch.version.cuda or 'not built in'}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    checks = [Check("torch", "ok", version)]
    for index in gpus:
        name, memory = torch.cuda.get_device_name(index), torch.cuda.get_device_properties(index).total_memory / GIB
        precision = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: runs in fp32"
        checks.append(Check(f"gpu {index}", "ok", f"{name}, {memory:.0f} GiB, {precision}"))
    if not gpus:
        checks.append(_no_gpu(torch.version.cuda, [str(warning.message) for warning in said]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [*checks, Check("cpu", "ok", f"{cores} cores for this process, {torch.get_num_threads()} torch threads")]


def _no_gpu(cuda: str | None, said: list[str]) -> Check:
    """No GPU is fine, unless this machine has one that torch cannot use."""
    if not _NVIDIA_DRIVER.is_file():
        return Check("gpu", "ok", "none: the toy suites and mini run on the CPU")
    why = said[0].splitlines()[0] if said else "torch sees none"
    need = f"a driver new enough for CUDA {cuda}" if cuda else "a CUDA build of torch"
    return Check(
        "gpu", "warn", f"there is an NVIDIA driver, but {why}", f"needs {need}, and a GPU given to this process"
    )


def _engines() -> list[Check]:
    return [
        Check(engine.name, "ok", engine.version)
        if engine.version
        else Check(engine.name, "warn", engine.problem, f"run `{engine.command}`")
        for engine in install.status()
    ]


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return Check("slurm", "warn", "no sbatch here", "only a cluster needs it: there, use bench on a login node")
    try:
        done = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("slurm", "warn", f"sbatch does not answer: {error}", "ask your cluster's administrators")
    return Check("slurm", "ok", done.stdout.strip())


def _folder(name: str, folder: Path, setting: str) -> Check:
    """Whether runs can write there, and how much."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        failed: BenchError = writing_failed(folder, error)
        return Check(name, "fail", f"{folder}: {failed.what}", failed.mend or f"name another folder by {setting}")
    free = shutil.disk_usage(there).free / GIB
    found = f"{folder}: {free:.1f} GiB free"
    if free < 1:
        return Check(name, "fail", found, f"free some space, or name another folder by {setting}")
    if free < 20:
        return Check(name, "warn", found, f"enough for the toy suites; for more, name another folder by {setting}")
    return Check(name, "ok", found)


def _shared_memory(folder: Path) -> list[Check]:
    """Loader processes hand batches over in shared memory, which containers often keep at 64 MB."""
    if not folder.is_dir():
        return []
    size = shutil.disk_usage(folder).total / GIB
    if size >= 1:
        return [Check("shared memory", "ok", f"{size:.1f} GiB")]
    mend = "give the container more (docker run --shm-size=8g), or use --workers 0"
    return [Check("shared memory", "warn", f"{size * 1024:.0f} MiB: loader processes may die of a bus error", mend)]


def _data(root: Path, cache: Path) -> list[Check]:
    """One check a data set. None is needed: ``scenes`` is generated."""
    if not root.is_dir():
        mend = "set BENCH_DATA or pass --data; the toy suites need no data"
        return [Check("data", "warn", f"{root}: no such folder", mend)]
    try:
        splits = catalog.status(root, cache)
    except BenchError as error:
        return [Check("data", "warn", error.what, error.mend or "")]
    return [_data_set(name, list(found)) for name, found in groupby(splits, key=lambda split: split.dataset)]


def _data_set(name: str, splits: list[catalog.Found]) -> Check:
    label = f"data: {name}"
    if all(split.state == "missing" for split in splits):
        return Check(label, "warn", f"not in {Path(splits[0].folder).parent}", f"run `bench data prepare {name}`")
    found = ", ".join(_images(split) for split in splits)
    lacking = [split for split in splits if split.state != "complete"]
    return Check(label, "warn" if lacking else "ok", found, lacking[0].mend if lacking else "")


def _images(split: catalog.Found) -> str:
    if split.images is None:
        return "generated"
    of = "" if split.state == "complete" or split.expected is None else f" of {split.expected:,}"
    return f"{split.split} {split.images:,}{of}"
