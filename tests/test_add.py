"""What others hand in is validated before anything is written, and hostile files stay outside."""

import json
from pathlib import Path

import pytest
import torch
from smoke_runs import edit, own_tables

from bench import catalogue, plan, registry, suite
from bench.backbones.base import build
from bench.checkpoints import card
from bench.errors import BenchError
from bench.identity import run_id
from bench.methods.base import make
from bench.runfolder import RunFolder
from bench.submission import add
from bench.verify import store
from bench.workflow import digests

FACTS = {
    "title": "Far away",
    "citation": "gidaris2018unsupervised",
    "idea": "Weights that came from elsewhere, drawn from a seed.",
    "suite": "smoke",
    "backbone": "alexnet-smoke",
    "pretraining_data": "scenes/unlabelled[160]",
}


def weights(folder, seed=0, change=lambda backbone: None, key="alexnet-smoke", **overrides):
    torch.manual_seed(seed)
    backbone = build(key, **overrides)
    change(backbone)
    card.save(folder, backbone, {"training": {"epochs": 90}})


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A folder with ``tables`` of its own and the weights of one seed."""
    own_tables(monkeypatch, tmp_path)
    weights(tmp_path / "in" / "seed0")
    yield tmp_path
    monkeypatch.undo()
    registry.refresh()


def declare(house, name="far-away.toml", lines='[weights]\n0 = "seed0"\n', **changes):
    facts = {**FACTS, **changes}
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in facts.items() if v is not None)
    file = house / "in" / name
    file.write_text(text + lines)
    return file


def take(house, file):
    return add(file, house / "runs", house / "data")


def refused(house, file, match):
    with pytest.raises(BenchError, match=match):
        take(house, file)
    assert not (house / "runs").exists()
    assert not list((house / "tables").rglob("*.toml"))


def test_weights_become_a_pretraining_that_is_done(house):
    said = take(house, declare(house))
    entry = registry.entry("methods", "far-away")
    assert (entry.title, entry.origin, entry.version, entry.facts["recipe"]) == ("Far away", "added", 1, None)
    at = suite.load("smoke")
    look = digests(house / "runs", house / "data", need_data=True)
    planned = plan.pretrain(at, "far-away", look, seed=0)
    folder = RunFolder(house / "runs" / planned.id)
    assert f"in place: {planned.id}" in said
    assert folder.done()
    assert run_id(folder.spec()) == planned.id
    backbone, found = card.load(folder.path)
    assert found["training"] == {"epochs": 90}
    torch.manual_seed(0)
    for name, value in build("alexnet-smoke").state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value)
    assert "Weights that came from elsewhere" in catalogue.method("far-away", runs=house, suite=None)
    assert not store.declarations(house / "tables" / "added")


def test_the_weights_are_of_one_backbone_and_nothing_trains_them(house):
    take(house, declare(house))
    assert registry.misfit("far-away", "alexnet-mini") == "the weights of far-away are those of alexnet-smoke"
    assert not registry.misfit("far-away", "alexnet-smoke")
    with pytest.raises(BenchError, match="the weights of this seed are not in place"):
        make("far-away", "alexnet-smoke", {}, seed=1)


def test_labels_make_a_reference(house):
    data = suite.load("smoke").role("imagenet").name()
    take(house, declare(house, needs=["image", "label"], pretraining_data=data))
    assert registry.entry("methods", "far-away").facts["role"] == "reference"


def test_a_seed_more_is_merged_and_another_file_needs_a_version(house):
    take(house, declare(house))
    weights(house / "in" / "seed1", seed=1)
    take(house, declare(house, lines='[weights]\n1 = "seed1"\n'))
    assert set(registry.entry("methods", "far-away").facts["weights"]) == {"0", "1"}
    with pytest.raises(BenchError, match=r"the file of seed 0 was another .*raise version"):
        take(house, declare(house, lines='[weights]\n0 = "seed1"\n'))
    with pytest.raises(BenchError, match=r"what it says was another .*raise version"):
        take(house, declare(house, title="Further away"))
    with pytest.raises(BenchError, match="two seeds have the same weights"):
        take(house, declare(house, lines='[weights]\n2 = "seed1"\n'))
    take(house, declare(house, lines='[weights]\n0 = "seed1"\n', version=2))
    assert registry.entry("methods", "far-away").version == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"title": "\x1b[2Jx"}, "title: .*control characters"),
        ({"title": ""}, "title: "),
        ({"title": "x" * 81}, "title: "),
        ({"idea": None}, "idea: Field required"),
        ({"citation": "a}{\\input{/etc/passwd}"}, "citation: "),
        ({"suite": "../../suites/smoke"}, "is not shipped"),
        ({"suite": "./mine.toml"}, "is not shipped"),
        ({"backbone": "alexnet"}, "backbone is 'alexnet', at suite smoke it is 'alexnet-smoke'"),
        ({"pretraining_data": "imagenet/train"}, "pretraining_data is 'imagenet/train'"),
        ({"version": 0}, "version: "),
        ({"needs": ["money"]}, "needs.0: "),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"lines": "[weights]\n-1 = 'seed0'\n"}, "not seeds"),
        ({"lines": "[weights]\n0 = '../../..'\n"}, "not below the folder"),
        ({"lines": "[weights]\n0 = '/etc'\n"}, "not below the folder"),
        ({"lines": "[weights]\n0 = 'nowhere'\n"}, "not a regular file"),
        ({"lines": "[weights]\n0 = 'seed0'\n1 = 'seed0'\n"}, "two seeds have the same weights"),
        ({"lines": "= no"}, "cannot read TOML"),
        ({"lines": "# " + "x" * 70_000}, "not a regular file of at most 65,536 bytes"),
        ({"name": "rotation.toml"}, "there is a method 'rotation' already"),
        ({"name": "Far Away.toml"}, "is no name"),
        ({"name": "a..b.toml"}, "is no name"),
    ],
)
def test_a_declaration_that_is_none(house, changes, match):
    refused(house, declare(house, **changes), match)


def test_a_link_is_no_declaration(house):
    link = house / "in" / "linked.toml"
    link.symlink_to(declare(house))
    refused(house, link, "not a regular file")
    refused(house, house / "in" / "nowhere.toml", "cannot read the method")
    refused(house, Path("x.zip"), "neither a method nor a result")


def test_weights_that_are_not_what_they_say(house):
    file, seed0 = declare(house), house / "in" / "seed0"
    kept = {path.name: path.read_bytes() for path in seed0.iterdir()}

    def again():
        for name, data in kept.items():
            (seed0 / name).write_bytes(data)

    edit(seed0 / "card.json", lambda c: c.update(note="\x1b]0;owned\x07"))
    refused(house, file, "control characters")
    again()
    edit(seed0 / "card.json", lambda c: c.update(overrides={"widths": [640, 1920, 3840, 2560, 2560]}))
    refused(house, file, "another net than alexnet-smoke: its widths differ")
    again()
    (seed0 / "backbone.safetensors").write_bytes(b"no")
    refused(house, file, "damaged or replaced")
    weights(seed0, key="alexnet-mini")
    refused(house, file, "a backbone 'alexnet-mini', not alexnet-smoke")
    weights(seed0, change=lambda b: next(b.parameters()).data.fill_(float("nan")))
    refused(house, file, "not finite")


def test_preprocessing_travels_with_the_weights(house):
    weights(house / "in" / "seed0", preprocess="sobel")
    take(house, declare(house))
    (folder,) = (house / "runs").glob("pretrain-*")
    assert card.load(folder)[0].preprocess.space == "sobel"


def test_the_gate_looks_at_declarations(house):
    take(house, declare(house))
    added = house / "tables" / "added"
    (added / "evil.toml").write_text((added / "far-away.toml").read_text().replace("Far away", "\\u001b[31m"))
    (added / "notes.txt").write_text("x")
    found = {Path(path).name: problem for path, problem in store.declarations(added)}
    assert set(found) == {"evil.toml", "notes.txt"}
    assert "control characters" in found["evil.toml"]
