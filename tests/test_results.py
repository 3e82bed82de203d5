"""Reading results: strictly, and as one tidy frame."""

import json

import pandas as pd
import pytest
import stored

from bench import results
from bench import suite as suites
from bench.errors import BenchError
from bench.files import write_json


@pytest.fixture
def written(tmp_path):
    """A function: a result on disk, some keys of it changed -> its file."""

    def make(**changes):
        file = tmp_path / "evaluate-rotation-x" / "result.json"
        write_json(file, {**stored.result(suites.load("smoke"), "rotation"), **changes})
        return file

    return make


def one(written, tmp_path, column="top1@conv3", **changes):
    written(**changes)
    found = results.load(tmp_path, published=False)
    return found[found["column"] == column].iloc[0]


def test_a_row_a_column_with_everything_in_its_place(written, tmp_path):
    file = written()
    said, found = results.read(file), results.load(tmp_path, published=False)
    assert list(found.columns) == results.COLUMNS
    assert list(found["column"]) == list(said.columns)
    row = found.iloc[2]
    number = said.columns["top1@conv3"]
    assert (row["value"], row["low"], row["high"], row["n"]) == (number.value, number.low, number.high, number.n)
    assert (row["method"], row["seed"], row["source"], row["path"]) == ("rotation", 0, "runs", str(file))
    assert (row["protocol"], row["variant"], row["data_digest"]) == ("imagenet-linear", "standard", "a+b")
    assert row["evidence"] == str(file.parent / said.evidence.file)
    assert row["evidence_sha256"] == said.evidence.sha256
    assert row["heldout"] == number.value


@pytest.mark.parametrize(
    "heldout",
    [
        {},
        {"conv3": {}},
        {"conv3": {"chosen_rate": 0.1, "top1": {"0.2": 1.0}}},
        {"conv3": {"chosen_rate": 0.1, "top1": [1.0]}},
        {"conv3": {"chosen_rate": 0.1, "top1": {"0.1": "many"}}},
        {"conv3": [1]},
        [],
        None,
    ],
)
def test_no_held_out_score_where_the_result_has_none(written, tmp_path, heldout):
    assert pd.isna(one(written, tmp_path, selection={"rule": "r", "heldout": heldout})["heldout"])


def test_the_score_is_of_the_columns_own_metric(written, tmp_path):
    columns = {"top5@conv3": stored.number(80.0)}
    assert pd.isna(one(written, tmp_path, "top5@conv3", columns=columns)["heldout"])


def test_evidence_is_looked_for_beside_the_result(written, tmp_path):
    file = written(evidence={"file": "../../elsewhere/e.npz", "sha256": "0" * 64})
    found = results.load(tmp_path, published=False)
    assert set(found["evidence"]) == {str(file.parent / "e.npz")}


def test_what_is_wrong_is_one_line(written):
    file = written(seed="zero")
    with pytest.raises(BenchError, match="seed: Input should be a valid integer"):
        results.read(file)
    said = json.loads(written().read_text())
    file.write_text(json.dumps({**said, "colour": 1}))
    with pytest.raises(BenchError, match="unknown key 'colour'"):
        results.read(file)
    file.write_bytes(b'{"schema": "\xff"}')
    with pytest.raises(BenchError, match="cannot read the result"):
        results.read(file)
