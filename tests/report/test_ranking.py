"""Whether what was measured ranks the rows as the papers did."""

import dataclasses

import pytest
from toy_house import forget, method

from bench.metrics.rank_correlation import agreement
from bench.report import layout, render, table

PRINTED = {"rotation": 38.7, "zeta": 30.0, "eta": 32.0, "theta": 34.0, "iota": 36.0}
"""Pretext rows and what the papers printed for conv3."""


@pytest.fixture
def rows(house, rotnet):
    """Five pretext methods with printed numbers for all columns, beside those of the Rotation paper."""
    from bench.report.spec import Published, RowSpec

    for key in PRINTED.keys() - {"rotation", "zeta"}:
        method(house / "methods", key, key.title())
    forget()
    new = {key: value for key, value in PRINTED.items() if key != "rotation"}
    numbers = {
        (key, f"conv{i}"): Published(
            value=value - abs(i - 3), text=str(value), status="verified-primary", source="s", note=""
        )
        for key, value in new.items()
        for i in range(1, 6)
    }
    return rotnet.model_copy(
        update={
            "rows": (*rotnet.rows, *(RowSpec(published=key, method=key) for key in new)),
            "published": {**rotnet.published, **numbers},
            "suite": "elsewhere",
        }
    )


@pytest.fixture
def draw(rows, frames, suite, result):
    """A function: {method: what was measured in all columns} -> the drawing."""

    def make(values, spec=rows, at=None, **changes):
        at = at or suite()
        found = [row for key, value in values.items() for row in result(at, key, value, **changes)]
        return table.draw(spec, at, *frames(found))

    return make


def of(drawing):
    return {one.of: one.agreement for one in drawing.rankings}


def flat(values):
    """One value for all layers."""
    return {key: [value] * 5 for key, value in values.items()}


def test_by_hand(draw):
    found = of(draw(flat(PRINTED)))["conv3"]
    assert (found.tau, found.rho, found.n, found.exact) == (1.0, pytest.approx(1.0), 5, True)
    assert found.tau_p == found.rho_p == pytest.approx(1 / 120)
    swapped = {**PRINTED, "rotation": PRINTED["iota"], "iota": PRINTED["rotation"]}
    found = of(draw(flat(swapped)))["conv3"]
    assert found == agreement(list(PRINTED.values()), list(swapped.values()))
    assert found.tau == pytest.approx(0.8)


def test_references_baselines_and_rows_without_both_numbers_stand_out(draw):
    more = {"supervised": 5.0, "random": 50.0, "random-rescaled": 60.0}
    assert of(draw(flat({**PRINTED, **more}))) == of(draw(flat(PRINTED)))
    four = {key: value for key, value in PRINTED.items() if key != "eta"}
    assert of(draw(flat(four))) == {}, "nothing of fewer than five"
    assert of(draw(flat(PRINTED), method_version=0)) == {}, "stale"


def test_only_away_from_the_papers_own_suite(draw, rows, suite):
    home = rows.model_copy(update={"suite": "toy"})
    assert of(draw(flat(PRINTED), home)) != {}, "toy is at no paper's scale"
    assert of(draw(flat(PRINTED), home, at=suite(paper=True))) == {}
    assert of(draw(flat(PRINTED), at=suite(paper=True))) != {}


def test_the_best_layer_is_chosen_on_the_held_out_slice(draw, suite, rows, frames, result):
    """conv5 is the best of every row by its number, and conv1 on the held-out slice; only there the ranks agree."""
    at = suite()
    found = []
    for place, (key, value) in enumerate(PRINTED.items()):
        made = result(at, key, [value, 1.0, 1.0, 1.0, 90.0 - place])
        found += [{**row, "heldout": 80.0 if row["column"] == "top1@conv1" else 10.0} for row in made]
    agreed = of(table.draw(rows, at, *frames(found)))
    assert agreed["best layer"].tau == 1.0
    assert agreed["conv5"].tau < 1
    unchosen = [{**row, "heldout": None} for row in found]
    assert "best layer" not in of(table.draw(rows, at, *frames(unchosen)))


def test_a_method_that_is_printed_twice_counts_once(draw, rows):
    rotation = next(row for row in rows.rows if row.method == "rotation")
    again = rows.model_copy(update={"rows": (*rows.rows, rotation.model_copy(update={"published": "zeta"}))})
    assert of(draw(flat(PRINTED), again))["conv3"].n == 5


def test_ties_throughout_say_nothing(draw):
    assert of(draw(flat(dict.fromkeys(PRINTED, 30.0)))) == {}


def test_what_was_computed_is_kept(rows, suite, result, frames, tmp_path, monkeypatch):
    from bench.report import compare, ranking

    at = suite()
    found, states = frames([row for key, value in PRINTED.items() for row in result(at, key, [value] * 5)])
    tests = compare.Tests(found, tmp_path / "kept")
    first = table.draw(rows, at, found, states, tests=tests)
    monkeypatch.setattr(ranking, "agreement", pytest.fail)
    assert table.draw(rows, at, found, states, tests=tests) == first


@pytest.mark.parametrize("fmt", [fmt for fmt in render.FORMATS if fmt != "csv"])
def test_every_format_prints_them(draw, fmt):
    text = render.render(draw(flat(PRINTED)), fmt)
    assert "Kendall" in text
    said = " ".join(text.split())
    assert "conv3 1.00 (p = 0.008) and 1.00 (p = 0.008), n = 5" in said


def test_measured_and_published_stay_apart(draw):
    assert [block.kind for block in layout.blocks(draw(flat(PRINTED)))] == ["measured", "published"]
    assert "rankings" in dataclasses.asdict(draw({}))
