"""Writes the results that are committed into the documents: what stands between two marks is never typed.

    .venv/bin/python docs/reproduction/report.py

In README.md and docs/reproduction.md, ``<!-- mini:NAME -->`` ... ``<!-- /mini:NAME -->`` holds the drawing NAME.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from bench import registry
from bench.errors import printable
from bench.files import atomic, read_json

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "reproduction.md")
RESULTS = ROOT / "tables" / "results" / "mini"
LINEAR = "imagenet-linear.standard"
MARKED = re.compile(r"(<!-- mini:(\S+) -->\n).*?(<!-- /mini:\2 -->)", re.DOTALL)


def table(name: str, *options: str) -> str:
    """What ``bench table`` draws from tables/results alone."""
    with tempfile.TemporaryDirectory() as empty:
        command = [str(Path(sys.executable).parent / "bench"), "table", name, "--suite", "mini", "--format", "markdown"]
        done = subprocess.run([*command, "--runs", empty, *options], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def measured(name: str) -> str:
    """The block of measured numbers, under its heading."""
    _, heading, rest = table(name).partition("**Measured at")
    return heading + "\n\n".join(rest.split("\n\n")[:2]) + "\n"


def whole(name: str) -> str:
    """All blocks and notes, without the title and the caption."""
    _, heading, rest = table(name).partition("**Measured at")
    return heading + rest


def training() -> str:
    """A row a method: what its pretraining left on held-out images, and how long it and the linear classifiers took."""
    heads = ("method", "pretext metric", "held-out", "chance", "epochs", "minutes")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --: | --: | --: | --: |"]
    for folder in sorted((RESULTS / "pretraining").iterdir()):
        cards = [read_json(file) for file in sorted(folder.glob("card-s*.json"))]
        if not cards[0]["pretext"]:
            continue
        probes = [read_json(file) for file in sorted((RESULTS / LINEAR / folder.name).glob("s*.json"))]
        seconds = [one["training"]["seconds"] for one in cards], [one["cost"]["seconds"] for one in probes]
        first = cards[0]["pretext"]
        cells = [
            printable(registry.entry("methods", cards[0]["method"]).title),
            f"`{first['metric']}`",
            ", ".join(f"{card['pretext']['value']:.3f}" for card in cards),
            f"{first['chance']:.3f}",
            f"{cards[0]['pretraining']['recipe']['epochs']}",
            " + ".join(f"{mean(those) / 60:.0f}" for those in seconds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


DRAWINGS: dict[str, Callable[[], str]] = {
    "imagenet-linear": lambda: measured("imagenet-linear"),
    "imagenet-linear-whole": lambda: whole("imagenet-linear"),
    "against-baseline": lambda: table("imagenet-linear", "--against-baseline"),
    "training": training,
    "voc": lambda: measured("voc"),
    "voc-whole": lambda: whole("voc"),
    "voc-against-baseline": lambda: table("voc", "--against-baseline"),
}


def filled(text: str) -> str:
    """A document with every drawing anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{DRAWINGS[found[2]]().strip()}\n\n{found[3]}", text)


def main() -> None:
    """Write the documents."""
    for document in DOCUMENTS:
        text = filled(document.read_text(encoding="utf-8"))
        with atomic(document, "w") as out:
            out.write(text)


if __name__ == "__main__":
    main()
