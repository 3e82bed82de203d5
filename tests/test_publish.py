"""What is published is what was verified; a number is never replaced in silence."""

import json
import shutil

import numpy as np
import pytest
from smoke_runs import edit, edit_evidence, make_runs, own_tables

from bench import publish, published, registry, results
from bench.errors import BenchError
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.verify import verify

FOLDER = "smoke/imagenet-linear.standard/alexnet-smoke.rotation"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"), "rotation")


@pytest.fixture
def runs(done, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path / "runs")
    own_tables(monkeypatch, tmp_path)
    yield tmp_path / "runs"
    monkeypatch.undo()
    registry.refresh()


def put(runs, **how):
    return publish.publish(publish.of_runs(runs, ("evaluate-*",)), runs, **how)


def result_of(runs):
    return next(runs.glob("evaluate-*")) / "result.json"


def another_number(runs):
    """Numbers and evidence of another measurement, in the run's folder."""
    file = result_of(runs)
    with np.load(file.parent / "evidence.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["rank"] = np.roll(arrays["rank"], 1, axis=0)
    np.savez_compressed(file.parent / "evidence.npz", **arrays)
    named = {"file": "evidence.npz", "sha256": results.sha256(file.parent / "evidence.npz")}
    edit(file, lambda r: r.update(columns=ImageNetLinear.columns(arrays), evidence=named))


def test_a_result_with_all_that_belongs_to_it(runs):
    assert put(runs) == [f"published: {FOLDER}/s0.json"]
    store = published.root()
    files = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
    pretraining = "smoke/pretraining/alexnet-smoke.rotation"
    assert files == {
        *(f"{FOLDER}/{name}" for name in ("s0.json", "s0.npz", "run-s0.json")),
        *(f"{pretraining}/{name}" for name in ("card-s0.json", "samples-s0.png")),
    }
    card = json.loads((store / pretraining / "card-s0.json").read_text())
    assert card["pretraining"]["recipe"]["epochs"] == 1
    assert card["training"]["curve"]
    assert put(runs) == [f"unchanged: {FOLDER}/s0.json"]
    assert {v.level for v in verify([store], runs, runs)} == {"checked"}


def test_a_picture_is_published_only_where_it_shows_generated_images(runs):
    spec = next(runs.glob("pretrain-*")) / "spec.json"
    edit(spec, lambda s: s["heldout"].update(dataset="tiny-imagenet-50"))
    put(runs)
    assert not list(published.root().rglob("*.png"))


def test_results_are_loaded_from_runs_before_tables(runs):
    put(runs)
    found = results.load(runs)
    assert list(dict.fromkeys(found["source"])) == ["runs", "tables"]
    assert set(results.load(None)["source"]) == {"tables"}


def test_another_number_is_replaced_only_with_a_reason(runs):
    put(runs)
    target = published.root() / FOLDER / "s0.json"
    before = target.read_bytes()
    another_number(runs)
    with pytest.raises(BenchError, match=r"another result is published: top1@conv1 .* -> .*--replace"):
        put(runs)
    assert target.read_bytes() == before
    with pytest.raises(BenchError, match="says no reason"):
        put(runs, replace="  ")
    (line,) = put(runs, replace="the first was measured on half of the images")
    assert line.startswith("replaced (top1@conv1 ")
    assert target.read_bytes() != before
    key = published.change(published.Path(FOLDER, "s0.json"), before)
    assert published.reasons(published.root()) == {key: "the first was measured on half of the images"}
    assert not [v for v in verify([published.root()], runs) if v.problems]


def test_what_does_not_verify_is_not_published(runs):
    edit(result_of(runs), lambda r: r["columns"]["top1@conv1"].update(value=99.0))
    with pytest.raises(BenchError, match="it does not verify: top1@conv1.value is 99.0"):
        put(runs)
    assert not published.root().exists()


def test_large_evidence_goes_to_a_folder_for_a_release(runs, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, 1_200_000, dtype=np.uint8)
    file = result_of(runs).with_name("evidence.npz")
    shutil.copy(result_of(runs), file.with_suffix(".json"))
    edit_evidence(file, lambda arrays: arrays.update(noise=noise))
    file.with_suffix(".json").replace(result_of(runs))
    with pytest.raises(BenchError, match=r"in git it may have 1,048,576.*--releases"):
        put(runs)
    (line,) = put(runs, releases=tmp_path / "releases")
    (large,) = (tmp_path / "releases").iterdir()
    assert large.name == f"{results.sha256(large)}.npz"
    assert f"attach {large} to a release" in line
    assert not list(published.root().rglob("*.npz"))
    assert {v.level for v in verify([published.root()], runs)} == {"unproven"}
    assert {v.level for v in verify([published.root()], runs, releases=large.parent)} == {"consistent"}


def test_two_runs_of_one_cell_are_not_published_over_each_other(runs, tmp_path):
    twin = tmp_path / "elsewhere" / "result.json"
    shutil.copytree(result_of(runs).parent, twin.parent)
    (twin.parent / "spec.json").unlink()
    with pytest.raises(BenchError, match="two of these results are of one cell and seed"):
        publish.publish([result_of(runs), twin], runs)
    assert not published.root().exists()


def test_only_evaluations_that_are_done(runs):
    with pytest.raises(BenchError, match="none of these runs is an evaluation that is done"):
        publish.of_runs(runs, ("pretrain-*",))
    with pytest.raises(BenchError, match="no run is called"):
        publish.of_runs(runs, ("no-such",))


def test_options_and_data_of_a_row_of_its_own_are_in_the_name(runs):
    result = results.read(result_of(runs))
    assert published.place(result).parts[2] == "alexnet-smoke.rotation"
    other = result.model_copy(update={"options": {"rotations": 2}})
    data = result.model_copy(update={"pretraining_data": "scenes/unlabelled[99]"})
    names = {published.place(each).parts[2] for each in (other, data)}
    assert len(names) == 2
    assert all(name.startswith("alexnet-smoke.rotation~") and len(name.rpartition("~")[2]) == 6 for name in names)


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "../a", "a..b", "A", ".a", "a.", "a b", "a\n", "é", "x" * 65, "con~1"]
)
def test_what_can_be_no_name_of_a_file(name):
    with pytest.raises(BenchError, match="is no name"):
        published.name(name)
