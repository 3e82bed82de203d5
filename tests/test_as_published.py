"""Tables whose rows stand under the protocol and on the backbone of their papers, from the command line."""

import json
import re
import sys

import pytest

from bench.cli import main
from bench.suite import _FOLDER

PHOTOS = """
title = "Large scenes"
description = "One row at the papers' size."
backbone = "alexnet"
[roles.pretrain]
dataset = "scenes"
train = ["unlabelled"]
options = { side = 240, classes = 2 }
train_options = { size = 4 }
[roles.imagenet]
dataset = "scenes"
train = ["train"]
test = ["val"]
options = { side = 240, classes = 2 }
train_options = { size = 4 }
test_options = { size = 4 }
[pretrain]
epochs = 1
batch = 4
"""


@pytest.fixture
def bench(monkeypatch, capsys):
    """A function: ``bench ...`` in this process -> (exit status, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return call


def _table(bench, suite, runs, *more):
    return json.loads(bench("table", "imagenet-linear", "--suite", suite, "--runs", runs, "--format", "json", *more)[1])


def _cells(drawn, method):
    return next(row for row in drawn["rows"] if row["method"] == method)["cells"]


def test_the_papers_scale_plans_each_row_on_its_own_ground(bench, tmp_path):
    paths = ["--runs", tmp_path, "--data", tmp_path]
    plan = json.loads(bench("plan", "imagenet-linear", "-s", "alexnet", "--as-published", "--json", *paths)[1])
    runs = {(run["spec"]["kind"], run["spec"]["method"]): run["spec"] for run in plan["runs"]}
    for method, backbone, variant in (
        ("supervised", "caffenet", "zhang2016"),
        ("random", "caffenet", "zhang2016"),
        ("random-rescaled", "caffenet", "zhang2016"),
        ("rotation", "alexnet", "rotnet2018"),
    ):
        assert runs["pretrain", method]["backbone"] == backbone
        assert runs["evaluate", method]["backbone"] == backbone
        assert runs["evaluate", method]["protocol"]["variant"] == variant
    _, out, _ = bench("reproduce", "imagenet-linear", "-s", "alexnet", "--as-published", "--dry-run", *paths)
    assert "evaluate-rotation-alexnet-alexnet-s0-" in out
    assert "evaluate-random-caffenet-alexnet-s0-" in out
    standard = json.loads(bench("plan", "imagenet-linear", "-s", "alexnet", "--json", *paths)[1])
    shared = {run["id"] for run in standard["runs"]} & {run["id"] for run in plan["runs"]}
    assert any(id.startswith("pretrain-rotation-alexnet-alexnet-s0-") for id in shared), "pretrained once for both"


def test_a_small_suite_says_what_it_needs(bench, tmp_path):
    some = ["-s", "smoke", "-m", "random,rotation", "--runs", tmp_path]
    _, out, _ = bench("plan", "imagenet-linear", "--as-published", *some)
    assert "Random: not implemented (needs 224/227 px)" in out
    assert "RotNet: not implemented (needs 224/227 px)" in out
    assert "0 runs, 0 to do" in out
    cells = _cells(_table(bench, "smoke", tmp_path, "--as-published"), "random")
    assert {(cell["state"], cell["reason"]) for cell in cells} == {("not implemented", "needs 224/227 px")}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--variant", "zhang2016"], "alexnet-smoke cannot be measured under zhang2016 at suite 'smoke'"),
        (["--variant", "zang2016"], "unknown variant of imagenet-linear 'zang2016': did you mean zhang2016"),
        (["--variant", "vissl"], "vissl does not say how to measure alexnet-smoke"),
        (["--backbone", "alexnett"], "unknown backbone 'alexnett'"),
    ],
)
def test_one_line_for_a_cell_that_cannot_be(bench, more, line, tmp_path):
    cell = ["run", "-s", "smoke", "--method", "random", "--protocol", "imagenet-linear", "--runs", tmp_path]
    status, _, error = bench(*cell, *more)
    assert status == 2
    assert line in error
    assert error.count("\n") == 1


def test_a_row_is_measured_as_published_and_its_command_makes_it_again(bench, tmp_path):
    suite = tmp_path / "large.toml"
    suite.write_text(PHOTOS)
    runs = tmp_path / "runs"
    arguments = ["imagenet-linear", "--suite", suite, "--methods", "rotation", "--runs", runs, "--as-published"]
    assert "2 runs, 2 to do" in bench("reproduce", *arguments)[1]
    assert (runs / "tables" / "imagenet-linear.large.as-published.html").is_file()
    cells = _cells(_table(bench, suite, runs, "--as-published"), "rotation")
    assert {cell["state"] for cell in cells} == {"measured"}
    assert {cell["state"] for cell in _cells(_table(bench, suite, runs), "rotation")} == {"not run"}, "never mixed in"
    (file,) = runs.glob("evaluate-*/result.json")
    result = json.loads(file.read_text())
    assert result["protocol"]["variant"] == "rotnet2018"
    assert result["selection"]["rule"].startswith("none")
    assert result["training"]["updates"] == 35
    command = result["command"].replace("--suite large", f"--suite {suite}").split()[1:]
    assert f"done: {file.parent}" in bench(*command, "--runs", runs)[1], "the same run, already done"
    levels = {v["level"] for v in json.loads(bench("verify", file, "--runs", runs, "--json")[1])}
    assert levels == {"consistent"}


def test_a_result_under_another_digest_is_stale(bench, tmp_path):
    text = (_FOLDER / "smoke.toml").read_text()
    changed, count = re.subn(r"^rates = .*$", "rates = [0.01, 0.05]", text, flags=re.M)
    assert count == 1
    suites = []
    for folder, content in (("before", text), ("after", changed)):
        (tmp_path / folder).mkdir()
        suites.append(tmp_path / folder / "mine.toml")
        suites[-1].write_text(content)
    before, after = suites
    random = ["imagenet-linear", "--methods", "random", "--runs", tmp_path / "runs"]
    assert bench("reproduce", *random, "--suite", before)[0] == 0
    cells = _cells(_table(bench, before, tmp_path / "runs"), "random")
    assert {cell["state"] for cell in cells} == {"measured"}
    for cell in _cells(_table(bench, after, tmp_path / "runs"), "random"):
        assert cell["state"] == "stale"
        assert cell["reason"].startswith("protocol digest ")
    assert "2 runs, 1 to do" in bench("plan", *random, "--suite", after)[1], "measured anew, on the same weights"
