"""Every method against the stronger baseline."""

import json
import re
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.metrics.compare import holm
from bench.report import baseline, compare, table

FIVE = [30.0, 31.0, 32.0, 33.0, 34.0]


@pytest.fixture
def compared(house, rotnet, frames):
    """A function: what comes of results."""

    def make(at, results, family=(), **options):
        found, states = frames(results)
        tests, spec = compare.Tests(found), rotnet.model_copy(update={"family": family})
        return baseline.against_baseline(table.draw(spec, at, found, states, tests=tests, **options), tests)

    return make


@pytest.fixture
def rows(suite, result):
    """A suite, and two methods and two baselines: Random is the stronger one on the held-out slice alone."""
    at = suite()
    made = {
        "rotation": result(at, "rotation", [v + 8 for v in FIVE]),
        "zeta": result(at, "zeta", FIVE),
        "random": [{**row, "heldout": 50.0} for row in result(at, "random", FIVE)],
        "random-rescaled": result(at, "random-rescaled", [v + 0.4 for v in FIVE]),
    }
    return at, made


def all_of(made):
    return [row for own in made.values() for row in own]


def test_the_baseline_is_chosen_on_the_held_out_slice(compared, rows):
    at, made = rows
    found = compared(at, all_of(made))
    assert {one.baseline for one in found} == {"Random"}
    assert [(one.row, one.column) for one in found[:2]] == [("Rotation", "conv1"), ("Zeta <i>&_|% {x} $1", "conv1")]
    assert found[0].difference == pytest.approx(8)
    assert found[0].p < 0.001
    assert found[1].difference == 0
    assert found[1].p > 0.3


def test_p_values_are_one_sided_and_holms(compared, rows, frames, house):
    at, made = rows
    found = [one for one in compared(at, all_of(made)) if one.column == "conv3"]
    results, _ = frames(all_of(made))
    tests = compare.Tests(results)
    store = table.Store(at, *frames(all_of(made)), None, {"imagenet-linear"})
    place = {key: table.Place(at, key, "{}", "toy", "scenes/unlabelled", "imagenet-linear", "standard") for key in made}
    tested = {key: compare.Tested(key, store.cell(place[key], "top1@conv3"), "top1@conv3") for key in made}
    raw = tests.p_below(tested["random"], [tested["rotation"], tested["zeta"]])
    assert [one.p for one in found] == pytest.approx(holm(raw))
    behind = tests.p_below(tested["rotation"], [tested["random"]])
    assert behind[0] > 0.999


def test_a_family_is_corrected_apart(compared, rows, result):
    at, made = rows
    made["supervised"] = result(at, "supervised", [90.0] * 5)
    near = {**made, "rotation": result(at, "rotation", [v + 1.5 for v in FIVE])}
    together = {(one.row, one.column): one.p for one in compared(at, all_of(near))}
    apart = compared(at, all_of(near), family=("rotation",))
    assert {one.row for one in apart if one.family} == {"Rotation"}
    for one in apart:
        alone = together[one.row, one.column] / 2 if one.family else together[one.row, one.column]
        assert one.p == pytest.approx(alone)
    assert "The family of Rotation and all other rows are corrected apart." in baseline.render(apart, "terminal")


def test_the_best_layers_are_chosen_on_the_held_out_slice(compared, rows):
    at, made = rows
    chosen = {"rotation": "conv2", "random": "conv1", "random-rescaled": "conv3"}
    for key, stage in chosen.items():
        made[key] = [{**row, "heldout": 60.0 if row["column"] == f"top1@{stage}" else 50.0} for row in made[key]]
    made["random"] = [{**row, "heldout": row["heldout"] + 1} for row in made["random"]]
    rotation = next(one for one in compared(at, all_of(made)) if one.column == "best layer" and one.row == "Rotation")
    assert (rotation.baseline, rotation.difference) == ("Random", pytest.approx(FIVE[1] + 8 - FIVE[0]))
    assert rotation.p < 0.001
    unchosen = [{**row, "heldout": None} for row in all_of(made)]
    assert "best layer" not in {one.column for one in compared(at, unchosen)}


def test_without_a_held_out_slice_the_harder_baseline_counts(compared, rows):
    at, made = rows
    unchosen = [{**row, "heldout": None} for row in all_of(made)]
    found = compared(at, unchosen)
    assert {one.baseline for one in found if one.row == "Rotation"} == {"Random rescaled"}
    assert found[0].difference == pytest.approx(7.6)
    alone = compared(at, [row for row in unchosen if row["method"] != "random-rescaled"])
    assert {one.baseline for one in alone} == {"Random"}


def test_references_and_stale_rows_are_not_compared(compared, rows, result):
    at, made = rows
    more = [*result(at, "supervised", [90.0] * 5), *result(at, "zeta", [99.0] * 5, method_version=0)]
    kept = {key: own for key, own in made.items() if key != "zeta"}
    assert {one.row for one in compared(at, [*all_of(kept), *more])} == {"Rotation"}


def test_as_markdown_and_json(compared, rows):
    at, made = rows
    found = compared(at, all_of(made))
    _, _, first, rotation, zeta, _, how = baseline.render(found, "terminal").splitlines()
    assert re.fullmatch(r"\| stronger baseline +(\| +Random ){6}\|", first)
    assert re.fullmatch(r"\| Rotation +(\| \+8\.0 \(p < 0\.001\) ){5}\| \+12\.0 \(p < 0\.001\) \|", rotation)
    assert "One-sided p after Holm's correction over the rows of the column" in how
    assert "where nothing is held out, the one that gives the larger p" in how
    assert "Zeta <i>" in zeta
    assert r"Zeta \<i\>" in baseline.render(found, "markdown")
    assert json.loads(baseline.render(found, "json"))[0]["baseline"] == "Random"


def test_where_the_baseline_differs_it_stands_in_the_cell():
    mixed = [
        baseline.Comparison("a", "conv1", "Random", 1.0, 0.5, False),
        baseline.Comparison("b", "conv1", "Other", -1.0, 0.2, False),
    ]
    assert baseline.wide(mixed)[1:] == [
        {"row": "a", "conv1": "+1.0 (p = 0.500, Random)"},
        {"row": "b", "conv1": "-1.0 (p = 0.200, Other)"},
    ]


def test_what_cannot_be_compared_is_the_users_to_mend(compared, rows):
    at, made = rows
    with pytest.raises(BenchError, match="different variants"):
        compared(at, all_of(made), as_published=True)
    found = compared(at, all_of(made))
    Path(made["zeta"][0]["evidence"]).unlink()
    with pytest.raises(BenchError, match="no evidence here of Zeta"):
        compared(at, all_of(made))
    with pytest.raises(BenchError, match="not drawn as latex"):
        baseline.render(found, "latex")
    with pytest.raises(BenchError, match="no method and baseline"):
        baseline.render(compared(at, made["rotation"]), "json")
