"""The worked examples of docs/adding-a-method.md, executed as they stand in a copy of the checkout: about a minute."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "adding-a-method.md"
FILE_OR_SHELL = r"^`(?P<name>[^`\n]+)`:\n\n```\w+\n(?P<text>.*?)^```|^```sh\n(?P<shell>.*?)^```"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout of its own, with ``bench`` and ``python`` on the path."""
    folder = tmp_path_factory.mktemp("copy") / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "results")
    for name in ("bench", "tables"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "tests/methods/test_contract.py", "tests/toydata.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    programs = folder.parent / "bin"
    programs.mkdir()
    for name, words in (("bench", "-m bench.cli"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def run(copy, command, check=True):
    path = os.pathsep.join([str(copy.parent / "bin"), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(copy), "BENCH_RUNS": str(copy / "runs"), "BENCH_DATA": str(copy / "data")}
    words = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(words, cwd=copy, env={**os.environ, **own}, capture_output=True, text=True, timeout=600)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def test_every_example_does_what_the_page_says(copy):
    said = []
    for block in re.finditer(FILE_OR_SHELL, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        if block["name"]:
            (copy / block["name"]).write_text(block["text"], encoding="utf-8")
        else:
            said.append(run(copy, block["shell"]).stdout)
    code, weights, results, published = said
    assert "passed" in code
    assert "FILL IN" not in code
    assert "tests/methods/test_upside_down.py" in code
    assert "declared: added/far-away.toml\nin place: pretrain-far-away-alexnet-smoke-smoke-s0-" in weights
    assert "published: smoke/imagenet-linear.standard/alexnet-smoke.closed-door/s0.json" in results
    rows = {line.split("|")[1].strip(): line for line in results.splitlines() if line.startswith("| ")}
    for title in ("Upside-down", "Far away", "Closed door"):
        assert re.search(r"\d\.\d", rows[title]), rows[title]
    assert published.count("published: ") == 2
    assert published.count("checked") == 3
    report = (copy / "report.md").read_text()
    assert report.startswith("## All 3 files verify")


def test_what_the_page_left_behind_is_guarded(copy):
    """Runs after the page: another key's file, another seed's weights, a forged result are refused."""
    again = run(copy, "bench add far-away.toml elsewhere/result.json").stdout
    assert "declared: added/far-away.toml" in again
    assert "unchanged: " in again
    other = run(
        copy,
        "sed -i s/manual_seed.0./manual_seed\\(7\\)/ train.py; python train.py; bench add far-away.toml",
        check=False,
    )
    assert other.returncode == 2
    assert "the file of seed 0 was another" in other.stderr
    result = json.loads((copy / "elsewhere" / "result.json").read_text())
    result["columns"]["top1@conv1"]["value"] = 99.0
    (copy / "elsewhere" / "result.json").write_text(json.dumps(result))
    forged = run(copy, "bench add elsewhere/result.json", check=False)
    assert forged.returncode == 2
    assert "it does not verify: top1@conv1.value is 99.0" in forged.stderr
