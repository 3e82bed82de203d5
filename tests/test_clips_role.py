"""A method that needs clips trains on the suite's clips, or is left out; and is marked where a program moves them."""

import json

import pytest
from smoke import bench

from bench import identity, registry
from bench import plan as planning
from bench import suite as suites
from bench.data import catalog
from bench.errors import BenchError
from bench.launch.state import COLUMNS as STATES
from bench.report import spec, table
from bench.report.render import FORMATS, render
from bench.results import COLUMNS as RESULTS
from bench.suite import read_toml

METHOD = "motion-segmentation"


def digests(role, split):
    return "0" * 16


def changed(name, change):
    """The suite after ``change`` of its parsed file."""
    file = suites._FOLDER / f"{name}.toml"
    data = read_toml(file)
    change(data)
    return suites.parse(f"{name}-changed", data, file)


@pytest.fixture
def without():
    return changed("smoke", lambda data: data["roles"].pop("clips"))


@pytest.fixture
def real(tmp_path):
    """The smoke suite on a folder of clips."""
    role = {"dataset": str(tmp_path / "mine"), "train": ["train"], "test": ["held"], "options": {"frames": 2}}
    return changed("smoke", lambda data: data["roles"].update(clips=role))


def drawn(suite):
    import pandas as pd

    return table.draw(spec.load("imagenet-linear"), suite, pd.DataFrame(columns=RESULTS), pd.DataFrame(columns=STATES))


def row(drawing):
    return next(row for row in drawing.rows if row.method == METHOD)


def test_each_kind_of_method_trains_on_its_role():
    suite = suites.load("mini")
    assert [identity.pretraining_role(m) for m in ("rotation", "supervised", METHOD)] == [
        "pretrain",
        "imagenet",
        "clips",
    ]
    run = planning.pretrain(suite, METHOD, digests, seed=0)
    assert run.spec["pretraining_data"] == "moving/train+unlabelled"
    assert run.spec["pretraining"]["data"]["options"] == {"over": "tiny-imagenet-50", "frames": 2}
    assert run.spec["pretraining"]["data"]["without_heldout"] == 0
    assert run.spec["heldout"]["splits"] == ["val"]
    assert run.spec["data"]["train"]["name"] == "moving/train+unlabelled"


@pytest.mark.parametrize("name", suites.names())
def test_every_suite_has_clips_and_plans_the_row(name):
    made = planning.plan([spec.load("imagenet-linear")], suites.load(name), digests)
    assert METHOD in {run.spec["method"] for run in made.runs}


def test_a_suite_without_clips_draws_the_row_and_runs_nothing(without):
    made = planning.plan([spec.load("imagenet-linear")], without, digests)
    needing = {e.key for e in registry.entries("methods") if "clip" in e.facts.get("needs", ())}
    assert not needing & {run.spec["method"] for run in made.runs}
    why = "not implemented (suite smoke-changed binds no data to clips)"
    assert needing == {skipped.row for skipped in made.skipped if skipped.reason == why}
    cells = row(drawn(without)).cells
    assert {(cell.state, cell.reason) for cell in cells} == {
        ("not implemented", "suite smoke-changed binds no data to clips")
    }
    assert not row(drawn(without)).synthetic_motion


def test_but_naming_it_is_an_error(without):
    with pytest.raises(BenchError, match="binds no data set to the role 'clips'"):
        planning.plan([spec.load("imagenet-linear")], without, digests, methods=[METHOD])


@pytest.mark.parametrize("options", [{}, {"over": "tiny-imagenet-50"}])
def test_clips_see_no_test_image(options):
    name = "moving" if options else "tiny-imagenet-50"
    role = {"dataset": name, "train": ["train", "val"], "options": options}
    with pytest.raises(BenchError, match="pretraining uses the split 'val', on which imagenet is tested"):
        changed("mini", lambda data: data["roles"].update(clips=role))


def test_the_mark_and_what_it_means(real):
    for name in ("smoke", "mini"):
        drawing = drawn(suites.load(name))
        assert [r.method for r in drawing.rows if r.synthetic_motion] == [
            e.key for e in registry.entries("methods") if "clip" in e.facts.get("needs", ())
        ]
        (note,) = [note for note in drawing.notes if note.mark == table.SYNTHETIC]
        assert note.text.startswith("synthetic motion")
    assert not row(drawn(real)).synthetic_motion
    assert not any(note.mark == table.SYNTHETIC for note in drawn(real).notes)
    assert not catalog.has_synthetic_motion("yfcc-clips")


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_says_it(fmt, real):
    marked, unmarked = render(drawn(suites.load("smoke")), fmt), render(drawn(real), fmt)
    sign = {"csv": ",False,True,", "json": '"synthetic_motion": true', "latex": r"Motion segmentation \P{}"}
    assert sign.get(fmt, "Motion segmentation ¶") in marked
    assert sign.get(fmt, "¶") not in unmarked
    if fmt != "csv":
        assert "synthetic motion: trained on clips" in marked


def test_who_takes_no_part_in_rankings(real):
    found = {r.method: table.unranked(r) for r in drawn(suites.load("smoke")).rows}
    assert found[METHOD] == "synthetic motion"
    assert found["supervised"] == "reference"
    assert found["random"] == "baseline"
    assert found["rotation"] == ""
    assert table.unranked(row(drawn(real))) == ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The smoke suite's row, computed from the command line."""
    runs = tmp_path_factory.mktemp("clips")
    bench("reproduce", "imagenet-linear", "--suite", "smoke", "--runs", runs, "--methods", METHOD)
    return runs


def test_the_row_is_measured_and_marked(trained):
    done = bench("table", "imagenet-linear", "--suite", "smoke", "--runs", trained, "--format", "json")
    (own,) = [row for row in json.loads(done.stdout)["rows"] if row["method"] == METHOD]
    assert {cell["state"] for cell in own["cells"]} == {"measured"}
    assert own["synthetic_motion"]
    assert own["pretraining_data"] == "scenes/unlabelled[96]"
    (card,) = [json.loads(file.read_text()) for file in trained.glob("pretrain-*/card.json")]
    assert (card["pretext"]["metric"], card["pretext"]["chance"], card["pretext"]["n"]) == ("explained", 0.0, 64)
    assert list(trained.glob("pretrain-*/samples.png"))
