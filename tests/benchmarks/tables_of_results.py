"""All tables of many results, the outcomes of tests being kept, against reading the same results with only ``json``.

python tests/benchmarks/tables_of_results.py --methods 100 --tables 20 --seeds 5

The methods, the tables (each with a protocol of its own) and the results are generated. A result is smaller than most
real ones, which makes the ratio larger: of the curve of training it has 20 points.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measuring import arguments, cpu_seconds, folder, heading, ratio

from bench import identity, registry
from bench import suite as suites
from bench.protocols import definitions
from bench.report import spec, table
from bench.report.draw import OnDisk
from bench.report.render import render
from bench.results import sha256

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")
IMAGES = 200
RATES = ("0.001", "0.003", "0.01", "0.03", "0.1")
PRINTED = 15
"""Rows of a table that a paper printed."""

METHOD = 'class Method:\n    title, citation, version, recipe = "{title}", "none", 1, None\n'
BACKBONE = 'class Toy:\n    title, version = "Toy", 1\n'
PROTOCOL = 'class Probe:\n    title, version, role = "{title}", 1, "imagenet"\n'
PROTOCOL += '    statistic = "bench.protocols.statistics:of_ranks"\n'
TABLE = 'title = "{name}"\ncaption = "Generated."\n[source]\npaper = "None"\ntable = "Table 1"\ncitation = "none"\n'
COLUMN = '[[columns]]\nkey = "{stage}"\nprotocol = "{protocol}"\nreads = "top1@{stage}"\ntitle = "{stage}"\n'
ROW = '[[rows]]\npublished = "{name}"\nmethod = "{name}"\n'
SCENES = {"dataset": "scenes", "train": ["train"], "test": ["val"]}
SUITE = {
    "title": "Toy",
    "description": "Generated.",
    "backbone": "toy",
    "roles": {"pretrain": {**SCENES, "train": ["unlabelled"]}, "imagenet": SCENES},
}


@contextmanager
def house(place: Path, methods: list[str], protocols: list[str]) -> Iterator[None]:
    """A registry of these alone."""
    texts = {f"methods/{name}": METHOD.format(title=name.title()) for name in methods}
    texts |= {f"protocols/{name}": PROTOCOL.format(title=name.title()) for name in protocols}
    for name, text in {**texts, "backbones/toy": BACKBONE}.items():
        file = place / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.with_suffix(".toml").write_text('[standard]\nheldout = 0.05\nselection = "held-out top-1"\n')
    was, registry._HERE = registry._HERE, place
    forget()
    try:
        yield
    finally:
        registry._HERE = was
        forget()


def forget() -> None:
    """What was read of the registry."""
    registry.refresh()
    definitions.load.cache_clear()


def declare(place: Path, methods: list[str], protocol: str) -> spec.TableSpec:
    """A table of one protocol, some of whose rows a paper printed."""
    place.mkdir(parents=True)
    lines = [COLUMN.format(stage=stage, protocol=protocol) for stage in STAGES]
    lines += [ROW.format(name=name) for name in methods[:PRINTED]]
    (place / "table.toml").write_text(TABLE.format(name=place.name) + "".join(lines), encoding="utf-8")
    printed = [
        f"{name},{stage},{30 + 0.7 * i + j:.1f},verified-primary,none,\n"
        for i, name in enumerate(methods[:PRINTED])
        for j, stage in enumerate(STAGES)
    ]
    (place / "published.csv").write_text(",".join(spec.FIELDS) + "\n" + "".join(printed), encoding="utf-8")
    return spec.read(place)


def record(runs: Path, suite: suites.Suite, method: str, protocol: str, seed: int, skill: float) -> None:
    """One result with its evidence, as a run leaves them."""
    run = f"evaluate-{method}-toy-toy-s{seed}-{identity.digest([method, protocol], 8)}"
    rng = np.random.default_rng([seed, *method.encode(), *protocol.encode()])
    hits = rng.random((len(STAGES), IMAGES)) < skill + 0.02 * rng.normal()
    home = runs / run
    home.mkdir(parents=True)
    np.savez(home / "evidence.npz", rank=np.where(hits, 0, 9).astype(np.uint8), stages=np.array(STAGES))
    now = identity.current(suite, method, "toy", protocol, "standard")
    value = 100 * hits.mean(1)
    columns = {
        f"top{k}@{stage}": {"value": v, "low": v - 6, "high": v + 6, "n": IMAGES, "chance": float(k), "unit": "%"}
        for k in (1, 5)
        for stage, v in zip(STAGES, value.tolist(), strict=True)
    }
    heldout = {stage: {"chosen_rate": 0.01, "top1": dict.fromkeys(RATES, 30.123)} for stage in STAGES}
    losses = {f"loss_{stage}": 2.51234 for stage in STAGES}
    curve = [{"update": i, "epoch": i / 10, "lr": {"main": 1.0}, "loss": 12.3456, **losses} for i in range(20)]
    result: dict[str, Any] = {
        "schema": 1, "method": method, "options": {}, "backbone": "toy",
        "pretraining_data": identity.pretraining_data(suite, method), "suite": "toy", "seed": seed,
        "versions": {"method": 1, "backbone": 1}, "pretraining_digest": now["pretraining_digest"],
        "protocol": {"name": protocol, "version": 1, "variant": "standard", "digest": now["protocol_digest"]},
        "columns": columns,
        "selection": {"rule": "rate by held-out top-1, last epoch", "n": 300, "heldout": heldout},
        "weights_sha256": "0" * 64,
        "data": {split: {"name": f"scenes/{split}", "digest": "0" * 16, "n": IMAGES} for split in ("train", "test")},
        "training": {"epochs": 14, "updates": 182, "batch": 128, "seconds": 34.1, "curve": curve},
        "code": {"bench": "0", "commit": "0" * 40, "changed": False}, "hardware": {"device": "cpu", "threads": 1},
        "cost": {"seconds": 34.1, "attempts": 1}, "command": f"bench run --suite toy --method {method} --seed {seed}",
        "evidence": {"file": "evidence.npz", "sha256": sha256(home / "evidence.npz")}, "warnings": [],
    }  # fmt: skip
    (home / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    (home / "spec.json").write_text("{}", encoding="utf-8")


def plain(runs: Path) -> list[Any]:
    """What drawing is held against: the results are read, and nothing done with them."""
    found = []
    for entry in os.scandir(runs):
        if entry.name.startswith("evaluate-"):
            with open(os.path.join(entry.path, "result.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                found.append(json.load(file))
    return found


def drawn(runs: Path, suite: suites.Suite, tables: list[spec.TableSpec]) -> list[str]:
    """All tables as Markdown, from what is on disk."""
    found = OnDisk(runs)
    return [
        render(table.draw(one, suite, found.results, found.states, tests=found.tests), "markdown") for one in tables
    ]


def main() -> None:
    """Print the ratio."""
    asked = arguments(__doc__ or "", methods=100, tables=20, seeds=5)
    methods = [f"method_{i}" for i in range(asked.methods)]
    protocols = [f"probe_{i}" for i in range(asked.tables)]
    heading(f"{asked.tables} tables of {asked.methods} methods, {asked.seeds} seeds each")
    with folder() as place, house(place / "house", methods, protocols):
        keys = [name.replace("_", "-") for name in methods]
        suite, runs = suites.parse("toy", SUITE, "generated"), place / "runs"
        tables = []
        for protocol in (name.replace("_", "-") for name in protocols):
            tables.append(declare(place / "tables" / f"of-{protocol}", keys, protocol))
            for i, method in enumerate(keys):
                for seed in range(asked.seeds):
                    record(runs, suite, method, protocol, seed, 0.3 + 0.2 * i / asked.methods)
        cold = cpu_seconds(lambda: drawn(runs, suite, tables))
        less = min(cpu_seconds(lambda: plain(runs)) for _ in range(3))
        more = min(cpu_seconds(lambda: drawn(runs, suite, tables)) for _ in range(3))
        ratio("all tables, tests kept / reading the results with json", more, less, "at most 3")
        ratio("the first time, every row tested / reading them", cold, less)


if __name__ == "__main__":
    main()
