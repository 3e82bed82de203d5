"""Brings what pip alone cannot get right: detectron2, mmsegmentation, OpenCV's contrib modules. Imports none of them.

detectron2 is not on PyPI under its own name. The wheel ``sal-detectron2`` 0.7.2 there holds the upstream Python
files, tagged cp310 for one optional binary (rotated boxes, deformable convolution, fast COCO evaluation) that
detectron2 does without and we do not use. So that one file, pinned by its sha256, is downloaded and wrapped again
as ``detectron2``, pure Python, without the binary and without a stray top-level package ``tools``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, did_you_mean
from bench.paths import declared

WHEEL, VERSION = "sal-detectron2", "0.7.2"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
LABELLED = f"{VERSION}+sal"
"""The version we install as: the local label says that it is not an upstream release."""

_DISTRIBUTIONS = {
    "detectron2": "detectron2",
    "mmsegmentation": "onedl-mmsegmentation",
    "opencv-contrib": "opencv-contrib-python-headless",
}


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine is there."""

    name: str
    version: str | None
    """The installed version; None where it is missing or does not work."""
    command: str
    """What installs it."""
    problem: str = ""
    """Why ``version`` is None."""


def status() -> list[EngineStatus]:
    """Every engine, in a fixed order; from the installed metadata, so nothing is imported."""
    return [_status(name) for name in _DISTRIBUTIONS]


def require(name: str) -> None:
    """Raises BenchError: the engine is missing; the line names the command that installs it."""
    found = _status(name)
    if found.version is None:
        raise BenchError(f"{name} is missing: {found.problem}", mend=f"run `{found.command}`")


def install(name: str, say: Callable[[str], None] = print) -> None:
    """Install an engine, with the pins that were tested together; ``say`` receives a line on what is done.

    An engine that is there is left alone, whatever its version; that needs no network.

    Raises:
        BenchError: unknown name, pip is missing or fails, or the download is not the pinned file.
    """
    found = _status(name)
    if found.version is not None:
        say(f"{name} {found.version} is installed already")
        return
    say(f"installing {name} with pip")
    if name == "detectron2":
        with tempfile.TemporaryDirectory() as folder:
            wheel = repackage(_download(Path(folder)), Path(folder))
            _pip_install(str(wheel), *_extra("detection"))
    elif name == "mmsegmentation":
        _pip_install(*_extra("segmentation"))
    # opencv-python, which mmsegmentation brings, may have landed on top of the contrib build
    if name != "detectron2" and _status("opencv-contrib").version is None:
        _pip_install("--force-reinstall", "--no-deps", _DISTRIBUTIONS["opencv-contrib"])
    require(name)
    say(f"{name} {_status(name).version} installed")


def repackage(source: Path, folder: Path) -> Path:
    """Wrap the wheel ``source`` again as ``detectron2``, pure Python, into ``folder``; return the new wheel."""
    target = folder / f"detectron2-{LABELLED}-py3-none-any.whl"
    info = f"detectron2-{LABELLED}.dist-info"
    record = []
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:

        def put(name: str, data: bytes) -> None:
            new.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")

        for name in old.namelist():
            if name.startswith("detectron2/") and not name.endswith(("/", ".so", ".pyd")):
                put(name, old.read(name))
            elif name.endswith(".dist-info/LICENSE"):
                put(f"{info}/licenses/LICENSE", old.read(name))
            elif name.endswith(".dist-info/METADATA"):
                put(f"{info}/METADATA", _metadata(old.read(name).decode()).encode())
        put(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        new.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return target


def _metadata(text: str) -> str:
    """The wheel's metadata under the new name; without the binary numpy 2 does, and black is only for a debug print."""
    headers, blank, body = text.partition("\n\n")
    lines = []
    for line in headers.splitlines():
        if line.startswith(("Requires-Dist: black", "License-File:")):
            continue
        if line.startswith("Name:"):
            line = "Name: detectron2"
        elif line.startswith("Version:"):
            line = f"Version: {LABELLED}"
        elif line.startswith("Requires-Dist: numpy"):
            line = "Requires-Dist: numpy"
        lines.append(line)
    return "\n".join(lines) + (blank + body if blank else "\n")


def _download(folder: Path) -> Path:
    """The pinned wheel; pip is told a Python and a platform that match its tag, whatever runs here.

    Raises:
        BenchError: pip cannot get it, or it is not the file that was examined.
    """
    tag = ["--python-version", "3.10", "--implementation", "cp", "--abi", "none", "--platform", "any"]
    _pip("download", "--no-deps", "--only-binary=:all:", *tag, "--dest", str(folder), f"{WHEEL}=={VERSION}")
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise BenchError(
            f"the download has sha256 {found}, not {SHA256}",
            where=wheel.name,
            mend="nothing was installed; the package index served another file, so try again or ask who runs it",
        )
    return wheel


def _pip_install(*arguments: str) -> None:
    pins = declared("constraints.txt")
    _pip("install", *(["--constraint", str(pins)] if pins.is_file() else []), *arguments)
    importlib.invalidate_caches()


def _pip(command: str, *arguments: str) -> None:
    """Run pip of this interpreter quietly.

    Raises:
        BenchError: there is no pip, or it fails (with the line in which it says why).
    """
    if importlib.util.find_spec("pip") is None:
        raise BenchError("this Python has no pip", where=sys.prefix, mend="run `python -m ensurepip`")
    call = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        why = said[-1] if said else f"exit status {done.returncode}"
        raise BenchError(f"pip {command} failed: {why}", mend="check the network or pip's configuration, and try again")


def _extra(extra: str) -> list[str]:
    """What one of our own extras requires, from the installed metadata."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("pretext-bench") or []]
    except importlib.metadata.PackageNotFoundError as error:
        raise BenchError(
            "pretext-bench itself is not installed", mend="run `pip install -e .` in its folder"
        ) from error
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in requirements
        if requirement.marker
        and requirement.marker.evaluate({"extra": extra})
        and not requirement.marker.evaluate({"extra": ""})
    ]


def _status(name: str) -> EngineStatus:
    if name not in _DISTRIBUTIONS:
        raise did_you_mean("engine", name, list(_DISTRIBUTIONS))
    command = f"bench install {name}"
    try:
        distribution = importlib.metadata.distribution(_DISTRIBUTIONS[name])
    except importlib.metadata.PackageNotFoundError:
        return EngineStatus(name, None, command, "it is not installed")
    if name == "opencv-contrib" and _overwritten(distribution):
        return EngineStatus(name, None, command, "another OpenCV package was installed over it")
    return EngineStatus(name, distribution.version, command)


def _overwritten(distribution: importlib.metadata.Distribution) -> bool:
    """Whether OpenCV's binary is not the one that this distribution brought: every OpenCV package has it there."""
    binaries = [file for file in distribution.files or [] if file.match("cv2/cv2*.so") or file.match("cv2/cv2*.pyd")]
    paths = [Path(str(file.locate())) for file in binaries]
    return any(
        not path.is_file() or path.stat().st_size != file.size for path, file in zip(paths, binaries, strict=True)
    )
