"""Results, pretrainings and pictures on disk that no run made, for whatever only reads them."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

from bench import identity
from bench.files import write_json
from bench.suite import Suite

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")


def number(value: float, n: int = 1000) -> dict[str, Any]:
    """A number of a result, with an interval of two points to either side."""
    return {"value": value, "low": value - 2, "high": value + 2, "n": n, "chance": 5.0, "unit": "%"}


def result(
    suite: Suite,
    method: str,
    seed: int = 0,
    /,
    *,
    base: float = 50.0,
    protocol: str = "imagenet-linear",
    columns: dict[str, float] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A ``result.json`` that is fresh today; ``changes`` replace its keys."""
    now = identity.current(suite, method, suite.backbone, protocol, "standard")
    values = columns or {f"top1@{stage}": base + 3 * min(i, 4 - i) for i, stage in enumerate(STAGES)}
    made = {
        "schema": 1,
        "method": method,
        "options": suite.options(method),
        "backbone": suite.backbone,
        "pretraining_data": identity.pretraining_data(suite, method),
        "suite": suite.name,
        "seed": seed,
        "versions": {"method": now["method_version"], "backbone": now["backbone_version"]},
        "pretraining_digest": now["pretraining_digest"],
        "protocol": {"name": protocol, "version": 1, "variant": "standard", "digest": now["protocol_digest"]},
        "columns": {key: number(value) for key, value in values.items()},
        "selection": {
            "rule": "rate by held-out top-1, last epoch",
            "heldout": {
                key.partition("@")[2]: {"chosen_rate": 0.1, "top1": {"0.1": value}} for key, value in values.items()
            },
        },
        "weights_sha256": "0" * 64,
        "data": {"train": {"digest": "a"}, "test": {"digest": "b"}},
        "training": {},
        "code": {},
        "hardware": {},
        "cost": {},
        "command": f"bench run --suite {suite.name} --method {method} --protocol {protocol} --seed {seed}",
        "evidence": {"file": "evidence.npz", "sha256": "0" * 64},
    }
    return made | changes


def write_result(runs: Path, made: dict[str, Any]) -> Path:
    """Put it where a run would have left it."""
    name = f"evaluate-{made['method']}-{made['protocol']['name']}-{made['suite']}-s{made['seed']}"
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count()))
    folder = next(runs / one.replace("/", "_") for one in names if not (runs / one.replace("/", "_")).exists())
    write_json(folder / "result.json", made)
    return folder


def write_pretraining(
    runs: Path, suite: Suite, method: str, seed: int = 0, /, *, shows: str = "scenes", **changes: Any
) -> Path:
    """A card with a curve, and a picture that shows images of a data set."""
    folder = runs / f"pretrain-{method}-{suite.name}-s{seed}"
    curve = [{"update": i, "epoch": i / 10, "loss": 2 / (1 + i), "accuracy": 1 - 0.7 / (1 + i)} for i in range(40)]
    card = {
        "schema": 1,
        "method": method,
        "options": suite.options(method),
        "suite": suite.name,
        "seed": seed,
        "weights_sha256": f"{seed:064d}",
        "training": {"images": 4000, "curve": curve},
        "pretext": {"metric": "accuracy", "value": 0.8125, "chance": 0.25, "n": 1000},
    }
    write_json(folder / "card.json", card | changes)
    write_json(folder / "spec.json", {"kind": "pretrain", "heldout": {"dataset": shows}})
    (folder / "backbone.safetensors").write_bytes(b"")
    (folder / "samples.png").write_bytes(png())
    return folder


def png() -> bytes:
    """A picture of one grey pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    )
