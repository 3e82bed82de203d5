"""Tuning by the pretext metric: trains each point of a study on one part of the images, measures on another.

    .venv/bin/python docs/reproduction/tune.py docs/reproduction/tuning.toml --data DATA --runs RUNS --jobs 2

A study names a suite, a seed, a budget and points: settings of ``[methods.<method>]`` in place of the suite's. No point
sees a test image or a label, but those of `supervised`, which is measured by the linear probe on the held-out slice of
the training images; a study with ``probed = true`` measures every point by that as well, to explain, not to choose.
What was measured goes to the study's ``.csv``, a line a point and metric. A point that is done is not done again, so a
study that was stopped goes on, and one with more points does only those.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.files import atomic, read_json
from bench.suite import load, read_toml

COLUMNS = ("method", "version", "settings", "epochs", "images", "seed", "metric", "value", "chance", "seconds")


def suite_of(study: dict[str, Any], method: str, point: dict[str, Any]) -> dict[str, Any]:
    """The study's suite, as data: on its images for tuning, at its budget, and of its methods one, at one point."""
    suite = load(study["suite"]).model_dump(mode="json", exclude_unset=True, exclude={"name"})
    for role in ("pretrain", "clips"):
        suite["roles"][role].update(study["data"])
    suite["pretrain"].update(study["pretrain"])
    return {**suite, "methods": {method: point}}


def to_toml(value: Any) -> str:
    """Inline TOML of plain values."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {to_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


def measure(
    study: dict[str, Any], method: str, point: dict[str, Any], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """One point, trained where it was not yet: its lines of the table, none where it could not be trained."""
    suite = suite_of(study, method, point)
    text = "".join(f"{json.dumps(key)} = {to_toml(value)}\n" for key, value in suite.items())
    file = arguments.runs / "suites" / f"tune-{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"
    with atomic(file, "w") as out:
        out.write(text)
    supervised = method == "supervised"
    probed = supervised or study.get("probed", False)
    command = [str(Path(sys.executable).parent / "bench"), "run", "--suite", str(file), "--method", method]
    command += ["--seed", str(study["seed"]), "--runs", str(arguments.runs), "--data", str(arguments.data)]
    command += ["--workers", "0", *(["--protocol", "imagenet-linear"] if probed else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    where = f"{method} {json.dumps(point)}"
    if done.returncode:
        print(f"{where}:\n{done.stdout}", file=sys.stderr, flush=True)
        return []
    (folder,) = arguments.runs.glob(f"pretrain-{method}-*-{file.stem}-s{study['seed']}-*")
    card = read_json(folder / "card.json")
    found = [] if supervised else [card["pretext"]]
    if probed:
        (folder,) = arguments.runs.glob(f"evaluate-{method}-*-{file.stem}-s{study['seed']}-*")
        result = read_json(folder / "result.json")
        best = max(max(stage["top1"].values()) for stage in result["selection"]["heldout"].values())
        chance = result["columns"]["top1@conv1"]["chance"]
        found.append({"metric": "best held-out top1 of the probes", "value": best, "chance": chance})
    same = {
        "method": method,
        "version": card["versions"]["method"],
        "settings": json.dumps(point),
        "epochs": card["pretraining"]["recipe"]["epochs"],
        "images": card["data"]["train"]["n"],
        "seed": study["seed"],
        "seconds": card["cost"]["seconds"],
    }
    lines = [
        {**same, "metric": one["metric"], "value": round(one["value"], 4), "chance": round(one["chance"], 4)}
        for one in found
    ]
    for line in lines:
        print(where, line["metric"], line["value"], f"{line['seconds']} s", flush=True)
    return lines


def main() -> None:
    """All points of a study."""
    parser = argparse.ArgumentParser(description="Tune by the pretext metric.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--jobs", type=int, default=1, help="points at once, one thread each")
    arguments = parser.parse_args()
    study = read_toml(arguments.study)
    points = [(method, point) for method, points in study["points"].items() for point in points]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        lines = list(pool.map(lambda named: measure(study, *named, arguments), points))
    with atomic(arguments.study.with_suffix(".csv"), "w") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(itertools.chain(*lines))
    sys.exit(not all(lines))


if __name__ == "__main__":
    main()
