"""Where published results lie, and why some of them changed. Imports no torch.

``tables/results/<suite>/<protocol>.<variant>/<backbone>.<method>[~<6 hex>]/`` holds ``s<seed>.json`` (the result),
``s<seed>.npz`` (its evidence), ``run-s<seed>.json`` (the spec of its run, where there was one), and of a detection
``detectron2-s<seed>.yaml``, of a segmentation ``mmsegmentation-s<seed>.yaml`` (the model's configuration). What was
learned in pretraining lies once, under ``<suite>/pretraining/<backbone>.<method>[~<6 hex>]/``: ``card-s<seed>.json``,
and ``samples-s<seed>.png``. The hex digits are there where options or pretraining data are not the suite's own.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath

from bench import identity
from bench import suite as suites
from bench.errors import BenchError
from bench.files import atomic
from bench.identity import digest
from bench.paths import declared
from bench.results import Result
from bench.suite import read_toml

MOST_BYTES = 2**20
"""Of one file in git. Larger evidence is a file of a release, called by its sha256."""
CHANGES = "CHANGES.toml"
PRETRAINING = "pretraining"

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_HEAD = "# Why a published result was replaced or removed: <file>@<first 8 hex digits of the old file's sha256>.\n"


def root() -> Path:
    """``tables/results``."""
    return declared("tables") / "results"


def name(text: str) -> str:
    """The text, where it can be the name of a file in every system and address.

    Raises:
        BenchError: it cannot.
    """
    if len(text) > 64 or not _NAME.fullmatch(text):
        mend = "lower-case letters and digits, joined by single dots, hyphens or underscores; at most 64"
        raise BenchError(f"{text[:80]!r} is no name", mend=mend)
    return text


def place(result: Result) -> Path:
    """Where the result belongs, below :func:`root`.

    Raises:
        BenchError: one of its names is none, or its suite or method is not known here.
    """
    suite = suites.load(name(result.suite))
    usual = suite.options(result.method), identity.pretraining_data(suite, result.method)
    return _file(result, own=(result.options, result.pretraining_data) != usual)


def places(result: Result) -> set[Path]:
    """Where it may lie: a suite's usual options change, and the results of before stay where they are.

    Raises:
        BenchError: one of its names is none.
    """
    return {_file(result, own=False), _file(result, own=True)}


def pretraining(file: Path) -> Path:
    """The folder of the card and picture of the pretraining behind the published result at ``file``."""
    return file.parents[2] / PRETRAINING / file.parent.name


def _file(result: Result, *, own: bool) -> Path:
    protocol = f"{name(result.protocol.name)}.{name(result.protocol.variant)}"
    row = f"{name(result.backbone)}.{name(result.method)}"
    if own:
        row += "~" + digest({"options": result.options, "pretraining_data": result.pretraining_data}, 6)
    return Path(name(result.suite), protocol, row, f"s{result.seed}.json")


def change(file: PurePosixPath | Path, old: bytes) -> str:
    """What a change of the published ``file`` is called in ``CHANGES.toml``; ``old`` is what it held before."""
    return f"{file.as_posix()}@{hashlib.sha256(old).hexdigest()[:8]}"


def reasons(store: Path) -> dict[str, str]:
    """{change: why}, from the store's ``CHANGES.toml``.

    Raises:
        BenchError: it cannot be read, or a reason is not a text.
    """
    file = store / CHANGES
    found = read_toml(file) if file.is_file() else {}
    for key, why in found.items():
        if not isinstance(why, str) or not why.strip():
            raise BenchError(f"{key!r} has no reason", where=file, mend="write why behind the equals sign")
    return found


def give_reason(store: Path, key: str, why: str) -> None:
    """Write down why a published result changed."""
    known = {**reasons(store), key: why}
    lines = [f"{json.dumps(k, ensure_ascii=False)} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in known.items()]
    with atomic(store / CHANGES) as file:
        file.write(_HEAD + "".join(lines))
