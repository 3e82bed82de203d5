"""A fourth protocol, as short as one can be: each setting learns how many objects an image shows."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench.backbones.base import build
from bench.data.annotation import Annotation
from bench.errors import BenchError
from bench.metrics.intervals import column
from bench.protocols import settings
from bench.protocols.definitions import Fitting, Variant
from bench.protocols.finetune import Downstream, Evaluation, Nets
from bench.protocols.transfer import freeze_
from bench.runfolder import Fenced, RunFolder
from bench.training.device import fabric
from bench.training.loop import Execution
from bench.training.recipe import SGD, MultiStep
from bench.training.task import Loss

DEFINITION = {
    "deviations": [],
    "sides": [],
    "transfer": {"absorb": True, "fc": [16], "fc_std": 0.2, "rescale": False},
    "batch": 8,
    "iterations": 6,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "settings": {
        "fc6": {"frozen": ["trunk"], "lr": 0.01, "parts": 2.0, "gamma": 0.5},
        "all": {"frozen": [], "lr": 0.02, "parts": 3.0, "gamma": 0.1},
    },
}


class Setting(settings.InParts, settings.Setting):
    pass


class Words(settings.SideBySide[Setting]):
    def needs(self):
        return ("conv5",)


class Counting(Downstream):
    title, citation, version = "Counting", "nobody2026", 1
    role = "voc07"
    schema = f"{__name__}:Words"
    truth, example = "objects", "voc2012"

    def measure(self, run):
        ready = run.prepared()
        task = Counters(ready.backbone, self.spec.settings, run.train)
        training = run.fit(task)
        guesses = run.over_test(task, task.guesses, 4)
        return self.measured({"guess": guesses.T, **self.names(run.test)}, run.test, training)

    @staticmethod
    def columns(evidence):
        more = zip(evidence["settings"].tolist(), evidence["guess"] > 0.5, strict=True)
        return {f"more@{name}": column(partial(_share, those), len(those), 0.5) for name, those in more}

    @staticmethod
    def contradicted(evidence, test):
        return [] if evidence["guess"].shape[1] == len(test) else ["it guesses something else"]


def _share(those, counts):
    return counts @ those / len(those)


class Counters(Nets):
    def __init__(self, backbone, named, train):
        super().__init__(backbone, named, freeze_, fixed=True)
        self.register_buffer("counts", torch.tensor([float(len(a.labels)) for a in train.annotations]))

    def view(self, sample, generator):
        return sample.image[:, :28, :28]

    test_view = view

    def guesses(self, batch):
        return torch.stack([_guess(net, batch) for net in self.nets.values()], 1)

    def losses(self, batch, step, generator):
        for name, net in self.nets.items():
            yield name, Loss((_guess(net, batch) - self.counts[batch.index]).square().mean())


def _guess(net, batch):
    return net.fc(net(batch.views)["conv5"]).mean(1)


class ToyObjects(ToyImages):
    def __init__(self, size, name):
        super().__init__(size, name=name)
        box, difficult = np.array([[0, 0, 32, 32]], np.float32), np.zeros(1, bool)
        self.annotations = [Annotation(box, np.array([label]), difficult, 32, 32) for label in self.labels]

    def mask(self, index):
        raise NotImplementedError


def _protocol(**changes):
    return Counting(Variant("counting", 1, "standard", {**DEFINITION, **changes}))


def _attempt(path):
    spec = {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    return RunFolder.create(path, spec).take("test")


def _evaluate(attempt, protocol=None, train=None, test=None, backbone=None):
    torch.manual_seed(0)
    return (protocol or _protocol()).evaluate(
        backbone or build("alexnet-smoke").eval(),
        train or ToyObjects(24, "toy/train"),
        test or ToyObjects(10, "toy/test"),
        method="m",
        seed=0,
        fabric=fabric(),
        attempt=attempt,
        how=Execution(workers=0),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return _evaluate(_attempt(tmp_path_factory.mktemp("run")))


# the protocol


def test_it_is_measured(measured):
    assert {"loss_fc6", "loss_all"} <= measured.training["curve"][0].keys()
    assert measured.training["updates"] == 6
    assert measured.selection == {"rule": "none: one rate, all of train, last iteration", "n": 0, "heldout": {}}
    assert list(measured.evidence) == ["guess", "settings", "classes", "ids_sha256"]
    assert set(Counting.columns(measured.evidence)) == {"more@fc6", "more@all"}


def test_the_seed_decides(measured, tmp_path):
    again = _evaluate(_attempt(tmp_path))
    assert np.array_equal(again.evidence["guess"], measured.evidence["guess"])


def test_the_backbone_is_left_as_it_is(tmp_path):
    backbone = build("alexnet-smoke").eval()
    before = copy.deepcopy(backbone.state_dict())
    _evaluate(_attempt(tmp_path), backbone=backbone)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_the_test_images_and_classes_are_held_against_the_evidence(measured):
    test = ToyObjects(10, "toy/test")
    assert Counting.contradictions(measured.evidence, test) == []
    short = dict(measured.evidence, guess=measured.evidence["guess"][:, :3])
    assert Counting.contradictions(short, test) == ["it guesses something else"]
    assert "other images" in Counting.contradictions(short, ToyObjects(10, "toy/other"))[0]
    test.classes = ("a", "b", "c", "d")
    assert Counting.contradictions(short, test) == ["the evidence speaks of other classes than toy/test"]


def test_what_cannot_be_evaluated_is_one_line(measured):
    with pytest.raises(BenchError) as caught:
        _evaluate(None, train=ToyImages(8))
    assert str(caught.value) == "toy/train has no objects: bind the role voc07 to a data set such as voc2012"
    with pytest.raises(BenchError, match="toy/test has no objects"):
        Counting.contradictions(measured.evidence, ToyImages(10, name="toy/test"))
    other = ToyObjects(10, "toy/test")
    other.classes = ("a", "b")
    with pytest.raises(BenchError, match="toy/train and toy/test have different classes"):
        _evaluate(None, test=other)
    with pytest.raises(BenchError, match=r"unknown key 'speed' \(counting, standard\)"):
        _protocol(speed=3)


def test_an_attempt_that_was_superseded_writes_no_file(tmp_path):
    old = _attempt(tmp_path)
    data = ToyObjects(8, "toy/train")
    run = Evaluation(_protocol().spec, build("alexnet-smoke"), data, data, "m", 0, fabric(), old, Execution())
    run.write("model.yaml", "one")
    old.end("CANCELLED")
    old.folder.take("test")
    with pytest.raises(Fenced):
        run.write("model.yaml", "two")
    assert (old.folder.path / "model.yaml").read_text() == "one"


# the nets


def test_every_setting_has_a_copy_that_learns_what_it_says():
    backbone = build("alexnet-smoke", fc=(16,))
    task = Counters(backbone, _protocol().spec.settings, ToyObjects(8, "toy/train")).train()
    learn = {name: set(map(id, those)) for name, those in task.parameters_of().items()}
    assert list(learn) == ["fc6", "all"]
    assert learn["fc6"] == {id(p) for name, p in task.nets["fc6"].named_parameters() if name.startswith("fc.")}
    assert learn["all"] == set(map(id, task.nets["all"].parameters()))
    assert not learn["all"] & set(map(id, backbone.parameters()))
    norms = [module for module in task.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


# the words


def test_a_definition_becomes_a_recipe():
    spec = Words.model_validate(DEFINITION)
    recipe = spec.recipe(20)
    assert (recipe.batch, recipe.epochs) == (8, 3)  # two updates an epoch
    assert recipe.optimisers() == {
        "fc6": SGD(0.01, 0.9, 5e-4, schedule=MultiStep((0.5,), 0.5)),
        "all": SGD(0.02, 0.9, 5e-4, schedule=MultiStep((1 / 3, 2 / 3), 0.1)),
    }
    assert (spec.recipe(5).batch, spec.recipe(5).epochs) == (5, 6)
    assert _protocol().recipe(20) == recipe


def test_which_backbones_it_fits():
    spec = Words.model_validate(DEFINITION)
    assert isinstance(spec, Fitting)
    assert spec.obstacle("alexnet-smoke", "alexnet-smoke") == ""
    assert spec.obstacle("resnet-smoke", "resnet-smoke") == "resnet-smoke has no conv5"
    sided = Words.model_validate({**DEFINITION, "sides": [224, 227]})
    assert sided.obstacle("caffenet", "alexnet") == ""
    assert sided.obstacle("caffenet", "alexnet-smoke") == "needs 224/227 px"


@pytest.mark.parametrize("name", ["FC", "fc@8", "fc_8", "", "-"])
def test_a_setting_has_a_name_that_columns_can_bear(name):
    with pytest.raises(ValueError, match="a setting is named by lower-case letters"):
        Words.model_validate({**DEFINITION, "settings": {name: DEFINITION["settings"]["all"]}})
