"""Bold: the rows of a column that no other is significantly above, tested on their evidence."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.metrics import compare as metric
from bench.report import compare, table
from bench.report.cell import Cell

FIVE = [30.0, 31.0, 32.0, 33.0, 34.0]


@pytest.fixture
def draw(house, rotnet, frames):
    """A function: the Rotation paper's table in the small house."""

    def make(suite, results, folder=None, **options):
        found, states = frames(results)
        return table.draw(rotnet, suite, found, states, tests=compare.Tests(found, folder), **options)

    return make


@pytest.fixture
def two(suite, result):
    """A suite and two rows, of which Rotation is clearly above in all columns but the last."""
    at = suite()
    return at, [*result(at, "rotation", FIVE), *result(at, "random", [20.0, 20.0, 20.0, 20.0, 34.2])]


def bold(drawing):
    return {row.method: [cell.best for cell in row.cells] for row in drawing.rows if any(c.best for c in row.cells)}


def measured(rows, column, frames):
    """{method: its measurement in one column}, by hand from the evidence."""
    found, _ = frames(rows)
    made = {}
    for method, own in found[found["column"] == column].groupby("method", sort=False):
        hits = []
        for _, one in own.iterrows():
            with np.load(one["evidence"]) as arrays:
                hits.append(arrays["rank"][arrays["stages"].tolist().index(column.partition("@")[2])] == 0)
        stacked = 100 * np.stack(hits).astype(float)
        weights = np.concatenate(metric.resampled_counts(stacked.shape[1]))
        resampled = weights @ stacked.mean(0) / stacked.shape[1]
        made[method] = metric.Measurement(tuple(stacked.mean(1)), resampled, stacked.shape[1])
    return made


def test_what_is_clearly_below_is_not_bold(draw, two):
    assert bold(draw(*two)) == {"rotation": [True] * 5, "random": [False] * 4 + [True]}


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_is_the_test_of_the_design_on_the_evidence(draw, suite, result, frames, seeds):
    at = suite()
    rows = [
        row
        for key, values in {"rotation": FIVE, "random": [29.0, 29.0, 29.0, 29.0, 31.1], "zeta": [30.5] * 5}.items()
        for seed in range(seeds)
        for row in result(at, key, [v + 0.4 * seed for v in values], seed=seed)
    ]
    found = bold(draw(at, rows))
    for i in range(5):
        by_hand = measured(rows, f"top1@conv{i + 1}", frames)
        kept = metric.not_below_any(list(by_hand.values()))
        assert [found.get(key, [False] * 5)[i] for key in by_hand] == kept
    assert found["rotation"] != found["random"]


def test_references_stale_rows_other_data_and_chance_take_no_bold(draw, suite, result):
    at = suite()
    usual = [*result(at, "rotation", FIVE), *result(at, "random", FIVE)]
    drawn = draw(at, [*usual, *result(at, "supervised", [90.0] * 5), *result(at, "zeta", [99.0] * 5, method_version=0)])
    assert bold(drawn).keys() == {"rotation", "random"}
    drawn = draw(at, [*usual, *result(at, "zeta", [99.0] * 5, data_digest="d1")])
    assert bold(drawn).keys() == {"rotation", "random"}
    drawn = draw(at, [{**row, "chance": 34.0} for row in usual])
    assert bold(drawn) == {}, "all intervals reach down to chance"


def test_a_row_alone_is_not_bold(draw, suite, result):
    at = suite()
    drawn = draw(at, [*result(at, "rotation", FIVE), *result(at, "supervised", FIVE)])
    assert bold(drawn) == {}
    assert not any("old" in sentence for sentence in (*drawn.reading, *drawn.remarks))


def test_the_caption_names_the_test_and_marks_single_seeds(draw, two, result):
    at, rows = two
    reading = draw(at, rows).reading
    assert any(s.startswith("Bold: significantly below no other row") and "Holm" in s for s in reading)
    assert "Rows with one seed are compared over the test examples only." in reading
    more = [*result(at, "rotation", FIVE, seed=1), *result(at, "random", [20.0] * 5, seed=1)]
    assert "Rows with one seed are compared over the test examples only." not in draw(at, [*rows, *more]).reading


def test_no_bold_across_variants(draw, two):
    assert bold(draw(*two, as_published=True)) == {}


def test_without_evidence_nothing_is_bold_and_the_table_says_so(draw, two):
    at, rows = two
    Path(rows[-1]["evidence"]).unlink()
    drawn = draw(at, rows)
    assert bold(drawn) == {}
    assert "no bold, for nothing can be tested: no evidence here of Random" in drawn.remarks
    unnamed = [{**row, "evidence": None, "evidence_sha256": None} for row in rows]
    assert "no evidence here of Random, Rotation" in draw(at, unnamed).remarks[-1]


def test_evidence_of_something_else_is_no_evidence(draw, two):
    at, rows = two
    Path(rows[0]["evidence"]).write_bytes(Path(rows[-1]["evidence"]).read_bytes())
    drawn = draw(at, rows)
    assert bold(drawn) == {}
    assert "Rotation: the evidence is not the file that the result names" in drawn.remarks[-1]


def test_evidence_of_another_number_is_no_evidence(draw, two):
    at, rows = two
    rows[2]["value"] += 0.05
    drawn = draw(at, rows)
    assert bold(drawn)["rotation"] == [True, True, False, True, True]
    assert "the evidence of Rotation gives 32 for top1@conv3, the result 32.05" in drawn.remarks[-1]


def test_evidence_without_a_column_leaves_the_others(draw, two, result, evidence):
    at, rows = two
    file, digest = evidence({f"top1@conv{i}": 20.0 for i in (1, 2, 3, 4)}, 2000, 7)
    short = [{**row, "evidence": file, "evidence_sha256": digest} for row in rows[5:]]
    drawn = draw(at, [*rows[:5], *short])
    assert bold(drawn)["rotation"] == [True, True, True, True, False]
    assert any(
        r.startswith("no bold in conv5, for nothing can be tested: the evidence of Random") for r in drawn.remarks
    )


def test_rows_on_different_test_examples_are_not_compared(draw, suite, result):
    at = suite()
    drawn = draw(at, [*result(at, "rotation", FIVE), *result(at, "random", FIVE, n=1000)])
    assert bold(drawn) == {}
    assert "do not share their test examples" in drawn.remarks[-1]


def test_a_protocol_that_names_no_statistic(draw, house, two):
    from bench import registry

    (house / "protocols" / "imagenet_linear.py").write_text(
        'class Probe:\n    title, version, role = "Linear", 1, "imagenet"\n', encoding="utf-8"
    )
    registry.refresh()
    drawn = draw(*two)
    assert bold(drawn) == {}
    assert "the protocol imagenet-linear names no statistic" in drawn.remarks[-1]


def test_what_is_printed_twice_is_tested_once(rotnet, house, frames, suite, result, monkeypatch):
    at = suite()
    twice = rotnet.model_copy(update={"rows": (*rotnet.rows, *(r for r in rotnet.rows if r.method == "rotation"))})
    families = []
    monkeypatch.setattr(
        compare.Tests, "not_below_any", lambda self, rows: families.append(len(rows)) or [True] * len(rows)
    )
    drawn = table.draw(twice, at, *frames([*result(at, "rotation", FIVE), *result(at, "random", FIVE)]))
    assert families == [2] * 5
    assert sum(row.method == "rotation" and row.cells[0].best for row in drawn.rows) == 2


# what is kept


def test_outcomes_are_kept_by_the_evidence(draw, two, tmp_path):
    at, rows = two
    first = draw(at, rows, tmp_path / "kept")
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}
    assert made
    for row in rows:
        Path(row["evidence"]).unlink(missing_ok=True)
    assert draw(at, rows, tmp_path / "kept") == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()} == made
    others = [{**row, "evidence_sha256": "f" * 64} for row in rows]
    assert bold(draw(at, others, tmp_path / "kept")) == {}, "nothing is known of other evidence"


@pytest.mark.parametrize("damage", [b"", b"no archive", b"half"])
def test_damaged_outcomes_are_made_again(draw, two, tmp_path, damage):
    at, rows = two
    first = draw(at, rows, tmp_path / "kept")
    whole = {file: file.read_bytes() for file in (tmp_path / "kept").iterdir()}
    for file, content in whole.items():
        file.write_bytes(content[: len(content) // 2] if damage == b"half" else damage)
    assert draw(at, rows, tmp_path / "kept") == first
    assert {file: file.read_bytes() for file in (tmp_path / "kept").iterdir()} == whole
    for file, content in whole.items():
        at_value = content.rindex(b"PK\x01\x02") - 3
        file.write_bytes(content[:at_value] + bytes([content[at_value] ^ 1]) + content[at_value + 1 :])
    assert draw(at, rows, tmp_path / "kept") == first, "one bit that has changed"


def test_where_nothing_can_be_kept_the_table_is_drawn_all_the_same(draw, two, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert draw(*two, tmp_path / "file" / "kept") == draw(*two)


def test_a_cell_that_was_never_measured_cannot_be_tested(frames, house):
    tests = compare.Tests(frames()[0])
    with pytest.raises(compare.UntestedError, match="no evidence here of A"):
        tests.p_below(compare.Tested("A", Cell("measured", evidence=("",)), "top1@conv1"), [])


def test_no_torch():
    code = "import sys; from bench.report import baseline, compare, ranking; print({'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
