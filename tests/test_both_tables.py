"""The two tables of the mission by one command, on generated images: every protocol, end to end."""

import json
import re
from collections import Counter

import pytest
from smoke import FOUR, bench

from bench import registry
from bench.paths import declared

COLUMNS = {
    "imagenet-linear": ["top1@conv1", "top1@conv5", "top5@conv3"],
    "voc07-classification": ["map@fc6-8", "map@all", "ap_cat@all"],
    "voc07-detection": ["map@all", "ap_cat@all"],
    "voc12-segmentation": ["miou@fc6-8", "miou@all", "iou_cat@all"],
}
"""Some of those that each protocol measures."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of runs, the drawn tables, what the command said)."""
    runs, out = tmp_path_factory.mktemp("both"), tmp_path_factory.mktemp("drawn")
    done = bench(
        "reproduce", "imagenet-linear", "voc", "--suite", "smoke", "--methods", FOUR, "--runs", runs, "--out", out
    )
    return runs, out, done.stderr + done.stdout


def results(runs):
    return [json.loads(file.read_text()) for file in sorted(runs.glob("*/result.json"))]


def test_every_method_is_measured_under_every_protocol(made):
    found = {(result["method"], result["protocol"]["name"]): result for result in results(made[0])}
    assert set(found) == {(method, protocol) for method in FOUR.split(",") for protocol in COLUMNS}
    for (_, protocol), result in found.items():
        for column in COLUMNS[protocol]:
            number = result["columns"][column]
            assert 0 <= number["low"] <= number["value"] <= number["high"] <= 100, column


def test_both_tables_are_drawn(made):
    for table in ("imagenet-linear", "voc"):
        text = (made[1] / f"{table}.smoke.md").read_text()
        for title in ("Random", "Random rescaled", "Rotation"):
            assert title in text
    drawn = json.loads((made[1] / "voc.smoke.json").read_text())
    rows = {row["method"]: row for row in drawn["rows"] if row["cells"]}
    for method in FOUR.split(","):
        assert {cell["state"] for cell in rows[method]["cells"]} == {"measured"}


def test_warnings_are_about_means_not_about_single_classes(made):
    said = [warning for result in results(made[0]) for warning in result["warnings"]]
    assert any("map@all is at chance" in warning for warning in said)
    assert not any(warning.startswith(("ap_", "iou_")) for warning in said)


def test_the_evidence_gives_the_numbers(made):
    levels = json.loads(bench("verify", "--json", *sorted(made[0].glob("*/result.json"))).stdout)
    assert [one["level"] for one in levels] == ["consistent"] * 16


def test_a_second_time_does_nothing(made):
    before = {file: file.stat().st_mtime_ns for file in made[0].glob("*/result.json")}
    bench("reproduce", "imagenet-linear", "voc", "--suite", "smoke", "--methods", FOUR, "--runs", made[0])
    assert {file: file.stat().st_mtime_ns for file in made[0].glob("*/result.json")} == before


def test_at_the_papers_scale_a_cluster_would_run_every_method_under_every_protocol(tmp_path):
    profile = declared("slurm") / "profiles" / "template.toml"
    where = ["--suite", "alexnet", "--runs", tmp_path, "--data", tmp_path]
    asked = bench("reproduce", "imagenet-linear", "voc", *where, "--on", profile, "--dry-run").stdout
    planned = [
        run["spec"] for run in json.loads(bench("plan", "imagenet-linear", "voc", *where, "--json").stdout)["runs"]
    ]
    fits = {key for key in registry.names("methods") if "alexnet" in registry.families(key)}
    assert {run["method"] for run in planned} == fits
    cells = [(run["method"], run["protocol"]["name"]) for run in planned if run["kind"] == "evaluate"]
    assert sorted(cells) == sorted((method, protocol) for method in fits for protocol in COLUMNS)
    listed = re.findall(r"^# job .*((?:pretrain|evaluate)-[a-z-]+)-alexnet-alexnet-s0-[0-9a-f]{8}$", asked, flags=re.M)
    assert Counter(listed) == Counter(f"{run['kind']}-{run['method']}" for run in planned)
    assert f"{len(planned)} runs, {len(planned)} to do" in asked
    assert not list(tmp_path.iterdir())
