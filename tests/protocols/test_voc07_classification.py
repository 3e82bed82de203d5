import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from toydata import ToyImages

from bench.backbones.base import build
from bench.data.annotation import Annotation
from bench.errors import BenchError
from bench.protocols import definitions
from bench.protocols.multilabel import FineTuning
from bench.protocols.transfer import prepared
from bench.protocols.voc07_classification import (
    Classifier,
    FineTuned,
    Voc07Classification,
    cross_entropy,
    random_crop,
)
from bench.runfolder import RunFolder
from bench.suite import load as load_suite
from bench.training import optim
from bench.training.device import fabric
from bench.training.loop import Execution, Interrupted
from bench.training.recipe import SGD
from bench.training.task import Batch, Step

NAME = "voc07-classification"
QUICK = {"fc": [32, 32], "fc_std": 0.2, "iterations": 60, "batch": 16, "crops": 2, "batches": 2}
FAST = {
    "fc6-8": {"frozen": ["trunk"], "lr": 0.02, "parts": 4.0, "gamma": 0.5},
    "all": {"frozen": [], "lr": 0.02, "parts": 4.0, "gamma": 0.5},
}


class ToyVoc(ToyImages):
    """Stripes of a class; every tenth image also shows the next class, every seventh as a difficult object only."""

    def __init__(self, size=96, name="toyvoc/train"):
        super().__init__(size, name=name)
        self.annotations = [self._annotation(i, int(label)) for i, label in enumerate(self.labels)]
        self.labels = np.full(size, -1)

    def _annotation(self, index, label):
        objects = [(label, False)]
        if index % 10 == 0:
            objects.append(((label + 1) % 4, False))
        if index % 7 == 0:
            objects.append(((label + 2) % 4, True))
        boxes = np.tile(np.array([[0, 0, 32, 32]], np.float32), (len(objects), 1))
        return Annotation(boxes, np.array([o[0] for o in objects]), np.array([o[1] for o in objects]), 32, 32)

    def mask(self, index):
        raise NotImplementedError


def _suite(**changes):
    return load_suite("smoke").model_copy(update={"protocols": {NAME: {**QUICK, **FAST, **changes}}})


def _protocol(backbone="alexnet-smoke", **changes):
    return Voc07Classification(definitions.load(NAME).variant("standard", _suite(**changes), backbone))


def _published(name, **changes):
    definition = definitions.load(NAME).variant(name).definition
    return FineTuning.model_validate({**definition, **changes})


def _backbone(key="alexnet-smoke"):
    torch.manual_seed(0)
    return build(key).eval()


def _folder(path):
    return RunFolder.create(path, {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0})


def _evaluate(*, attempt, **how):
    return _protocol().evaluate(
        _backbone(),
        ToyVoc(),
        ToyVoc(40, name="toyvoc/test"),
        method="rotation",
        seed=0,
        fabric=fabric(),
        attempt=attempt,
        how=Execution(workers=0, **how),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return _evaluate(attempt=_folder(tmp_path_factory.mktemp("voc") / "run").take("test"))


# what is measured


def test_it_learns_and_measures_both_settings_and_every_class(measured):
    curve = measured.training["curve"]
    for setting in FAST:
        losses = [point[f"loss_{setting}"] for point in curve]
        assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    columns = Voc07Classification.columns(measured.evidence)
    assert set(columns) == {
        f"{m}@{s}" for s in FAST for m in ("map", "ap_class0", "ap_class1", "ap_class2", "ap_class3")
    }
    for column in columns.values():
        assert column["low"] <= column["value"] <= column["high"]
        assert (column["n"], column["unit"]) == (40, "%")
    assert columns["map@all"]["value"] > columns["map@all"]["chance"]
    assert measured.training["transfer"]["steps"] == ["BatchNorm absorbed", "fc from gaussian", "rescaled"]


def test_numbers_are_those_of_the_released_evaluation(measured):
    evidence = measured.evidence
    columns, truth = Voc07Classification.columns(evidence), evidence["truth"]
    assert evidence["scores"].shape == (2, 40, 4)
    assert evidence["scores"].dtype == np.float32
    for setting, scores in zip(evidence["settings"], evidence["scores"].astype(np.float64), strict=True):
        aps = []
        for k in range(4):
            counts = truth[:, k] >= 0
            gt = (truth[counts, k] == 1).astype(float)
            aps.append(100 * average_precision_score(gt, scores[counts, k] - 1e-5 * gt))
            assert columns[f"ap_class{k}@{setting}"]["value"] == pytest.approx(aps[-1], abs=1e-4)
        assert columns[f"map@{setting}"]["value"] == pytest.approx(np.mean(aps), abs=1e-4)


def test_chance_is_the_share_of_positives_among_what_counts(measured):
    evidence = dict(measured.evidence, truth=np.array([[1, 0], [0, 0], [-1, 1], [0, -1]], np.int8))
    evidence |= {
        "scores": np.zeros((1, 4, 2), np.float32),
        "settings": np.array(["all"]),
        "classes": np.array(["a", "b"]),
    }
    columns = Voc07Classification.columns(evidence)
    assert columns["ap_a@all"]["chance"] == columns["ap_b@all"]["chance"] == pytest.approx(100 / 3)
    assert columns["map@all"]["value"] == pytest.approx(columns["map@all"]["chance"]), "equal scores are chance"


def test_a_class_that_no_test_image_shows_has_no_column(measured):
    truth = measured.evidence["truth"].copy()
    truth[:, 1] = 0
    columns = Voc07Classification.columns(dict(measured.evidence, truth=truth))
    assert "ap_class1@all" not in columns
    others = [columns[f"ap_class{k}@all"]["value"] for k in (0, 2, 3)]
    assert columns["map@all"]["value"] == pytest.approx(np.mean(others))


def test_evidence_is_held_against_the_annotations(measured):
    test = ToyVoc(40, name="toyvoc/test")
    assert Voc07Classification.contradictions(measured.evidence, test) == []
    truth = measured.evidence["truth"].copy()
    truth[[3, 5], 0] = 1 - truth[[3, 5], 0]
    forged = dict(measured.evidence, truth=truth)
    assert Voc07Classification.contradictions(forged, test) == ["the evidence contradicts the annotations of 2 images"]
    other = ToyVoc(40, name="toyvoc/other")
    assert "other images" in Voc07Classification.contradictions(measured.evidence, other)[0]
    test.classes = ("a", "b", "c", "d")
    assert "other classes" in Voc07Classification.contradictions(measured.evidence, test)[0]


def test_a_data_set_without_annotations_is_refused(tmp_path):
    with pytest.raises(BenchError, match="toy/train has no annotations"):
        _protocol().evaluate(
            _backbone(), ToyImages(), ToyVoc(), method="m", seed=0, fabric=fabric(), attempt=None, how=Execution()
        )


# training


def test_what_is_ignored_costs_nothing_by_hand():
    scores = torch.tensor([[0.0, 2.0, -3.0], [1.0, 0.0, 5.0]], requires_grad=True)
    labels = torch.tensor([[1, -1, 0], [0, 1, -1]], dtype=torch.int8)
    entropy = torch.nn.functional.softplus
    one = entropy(torch.tensor(-0.0)) + entropy(torch.tensor(-3.0))
    other = entropy(torch.tensor(1.0)) + entropy(torch.tensor(-0.0))
    loss = cross_entropy(scores, labels, "sum")
    assert loss.item() == pytest.approx(float((one + other) / 2))
    loss.backward()
    assert scores.grad[0, 1] == scores.grad[1, 2] == 0
    assert (scores.grad[labels >= 0] != 0).all()
    assert cross_entropy(scores, labels, "mean").item() == pytest.approx(loss.item() / 3)


def _task(spec, backbone):
    return FineTuned(backbone, spec, torch.zeros(96, 4, dtype=torch.int8))


def _moved_by_a_step(task):
    """{setting: names of the tensors that an update on random images and labels changes}."""
    before = {name: copy.deepcopy(net.state_dict()) for name, net in task.nets.items()}
    dice = torch.Generator().manual_seed(0)
    task.labels = torch.randint(0, 2, task.labels.shape, generator=dice).to(torch.int8)
    batch = Batch(torch.rand(16, 3, task.side, task.side, generator=dice), torch.arange(16), torch.full((16,), -1))
    words = SGD(lr=0.1, momentum=0.9)
    optimisers = {name: task.optimiser_of(name, words, those) for name, those in task.parameters_of().items()}
    task.train()
    for name, loss in task.losses(batch, Step(0, 0, 1), dice):
        loss.total.backward()
        optimisers[name].step()
    return {
        name: {n.removeprefix("backbone.") for n, value in net.state_dict().items() if not torch.equal(value, old[n])}
        for (name, net), old in zip(task.nets.items(), before.values(), strict=True)
    }


def _that_keeps_batchnorm(**changes):
    """A variant that leaves BatchNorm in the net, and a net prepared for it."""
    transfer = {"absorb": False, "fc": [32, 32], "rescale": False}
    spec = _published("deepcluster2018", transfer=transfer, **changes)
    dice = torch.Generator().manual_seed(0)
    return spec, prepared(_backbone(), [], spec.transfer, method="rotation", generator=dice).backbone


def test_frozen_layers_do_not_move_nor_do_their_statistics():
    moved = _moved_by_a_step(_task(*_that_keeps_batchnorm()))
    assert {name.split(".")[0] for name in moved["fc6-8"]} == {"fc", "output"}
    assert {name.split(".")[0] for name in moved["all"]} == {"fc", "output", *_backbone().stages}
    assert not [name for names in moved.values() for name in names if "running" in name]


def test_the_scales_of_frozen_batchnorms_learn_where_the_variant_says_so():
    moved = _moved_by_a_step(_task(*_that_keeps_batchnorm(frozen_affine=True)))["fc6-8"]
    norms = {f"conv{i}.norm.{part}" for i in range(1, 6) for part in ("weight", "bias")}
    assert {name for name in moved if name.startswith("conv")} == norms


def test_a_resnet_is_fine_tuned_as_a_whole_and_its_statistics_move():
    spec = _protocol("resnet-smoke").spec
    assert list(spec.settings) == ["all"]
    backbone = _backbone("resnet-smoke")
    task = _task(spec, backbone)
    views = torch.rand(2, 3, 28, 28)
    average = backbone(views)["res5"].mean((2, 3))
    net = task.eval().nets["all"]
    assert torch.allclose(net(views), average @ net.output.weight.T + net.output.bias, atol=1e-5)
    assert {name for name in net.state_dict() if "num_batches" not in name} - {
        f"backbone.{name}" if not name.startswith("output") else name for name in _moved_by_a_step(task)["all"]
    } == set()


def test_settings_start_alike_and_do_not_share_weights():
    task = _task(*_that_keeps_batchnorm())
    one, other = task.nets.values()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()


def test_the_output_layer_starts_as_the_variant_says():
    for name, std, bias in (("kraehenbuehl2016", 0.01, 0.1), ("bigan2017", 0.0, 0.0), ("deepcluster2018", None, 0.1)):
        spec = _published(name)
        torch.manual_seed(0)
        net = Classifier(_that_keeps_batchnorm()[1], spec, 500)
        assert (net.output.bias == bias).all()
        wanted = 1 / 32**0.5 / 3**0.5 if std is None else std
        assert net.output.weight.std().item() == pytest.approx(wanted, rel=0.05)


def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, measured):
    folder, seen = _folder(tmp_path / "run"), []
    attempt = folder.take("test")
    with pytest.raises(Interrupted):
        _evaluate(attempt=attempt, progress=lambda done, of: seen.append(done), stop=lambda: len(seen) == 9)
    attempt.end("CANCELLED", "stopped on request")
    resumed = _evaluate(attempt=folder.take("test"), progress=lambda done, of: seen.append(done))
    assert seen == list(range(1, 61)), "it went on where it was"
    assert np.array_equal(resumed.evidence["scores"], measured.evidence["scores"])
    assert resumed.training["curve"] == measured.training["curve"]


# views


def test_crops_of_a_share_of_the_area_are_square_and_inside():
    """Every pixel of the image says where it is, so that a crop says where it was cut."""
    spec = _published("deepcluster2018", kernel="nearest", antialias=False)
    y, x = np.mgrid[0:200, 0:250]
    image = torch.from_numpy(np.stack([y, x, 0 * y]).astype(np.uint8))
    shares, dice = [], np.random.default_rng(0)
    for _ in range(300):
        crop = random_crop(image, 20, spec, dice).numpy().astype(int)
        down, right = (np.diff(axis).mean() for axis in (crop[0, :, 0], crop[1, 0]))
        assert down == pytest.approx(right, rel=0.02)
        shares.append((20 * down) ** 2 / (200 * 250))
    assert 0.095 < min(shares) < 0.12
    assert 0.45 < max(shares) < 0.515
    assert np.mean(shares) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("height", "width", "side", "low", "high"),
    [(250, 250, 50, 0.5, 2.0), (80, 250, 50, 0.5, 1.6), (40, 250, 100, 0.4, 0.4)],
)
def test_crops_of_a_share_of_the_input_side_shrink_to_what_fits(height, width, side, low, high):
    spec = _published("kraehenbuehl2016", kernel="nearest")
    y, x = np.mgrid[0:height, 0:width]
    image = torch.from_numpy(np.stack([y, x, 0 * y]).astype(np.uint8))
    scales, dice = [], np.random.default_rng(0)
    for _ in range(300):
        crop = random_crop(image, side, spec, dice).numpy().astype(int)
        assert crop.shape == (3, side, side)
        scales.append((crop[1, 0, -1] - crop[1, 0, 0] + 1) / side)
    assert min(scales) == pytest.approx(low, abs=0.06)
    assert max(scales) == pytest.approx(high, abs=0.06)


def test_test_crops_are_drawn_as_training_crops_and_their_scores_are_added():
    spec, backbone = _that_keeps_batchnorm(test={"kind": "random", "crops": 3}, settings={"all": FAST["all"]})
    task, data = _task(spec, backbone).eval(), ToyVoc(2)
    views = [task.test_view(data[i], np.random.default_rng(i)) for i in range(2)]
    assert views[0].shape == (3, 3, 28, 28)
    assert not torch.equal(views[0][0], views[0][1])
    assert torch.equal(views[0][0], task.view(data[0], np.random.default_rng(0)))
    batch = Batch(torch.stack(views), torch.arange(2), torch.full((2,), -1))
    one_by_one = [sum(task.nets["all"](crop[None])[0] for crop in crops) for crops in views]
    assert torch.allclose(task.scores(batch)[:, 0], torch.stack(one_by_one), atol=1e-5)


def test_a_resnet_is_tested_on_the_centre():
    task = _task(_protocol("resnet-smoke").spec, _backbone("resnet-smoke"))
    sample = ToyVoc(1)[0]
    assert torch.equal(task.test_view(sample, None), sample.image[None, :, 2:30, 2:30])  # 32 is 28 x 256 / 224


# variants


def test_rates_drop_at_the_iterations_published():
    for name, setting, at, rates in (
        ("standard", "fc6-8", (0, 4999, 5000, 10000), (3e-3, 3e-3, 1.5e-3, 7.5e-4)),
        ("standard", "all", (0, 9999, 10000, 79999), (1e-3, 1e-3, 5e-4, 1e-3 / 2**7)),
        ("kraehenbuehl2016", "fc6-8", (0, 9999, 10000), (1e-3, 1e-3, 5e-4)),
        ("deepcluster2018", "all", (0, 19999, 20000), (1e-3, 1e-3, 5e-4)),
    ):
        recipe = Voc07Classification(definitions.load(NAME).variant(name)).recipe(5011)
        spec = recipe.optimisers()[setting]
        assert [optim.rate(spec, Step(0, t, 80000).done) for t in at] == pytest.approx(rates)
        assert (recipe.batch, spec.clip, spec.weight_decay) == (16, 10.0, 1e-6)
    resnet = Voc07Classification(definitions.load(NAME).variant("standard", None, "resnet50")).recipe(5011)
    spec = resnet.optimisers()["all"]
    assert [optim.rate(spec, t / 3000) for t in (0, 1599, 1600)] == pytest.approx([0.01, 0.01, 0.001])
    assert (resnet.batch, spec.nesterov) == (128, True)


def test_where_fc6_and_fc7_start_is_part_of_the_identity():
    found = definitions.load(NAME)
    digests = {}
    for fc_init in ("gaussian", "kmeans", "weights"):
        suite = _suite(fc_init=fc_init)
        digests[fc_init] = found.variant("standard", suite, "alexnet-smoke").digest
    assert len(set(digests.values())) == 3
    every = [found.variant(name).digest for name in found.variants]
    assert len(set(every)) == len(every)
    gray, colour = (found.variant(name).definition for name in ("zhang2016", "zhang2016-color"))
    assert {**gray, "transfer": {**gray["transfer"], "colour": True}} == colour


def test_which_backbones_can_be_measured():
    suite, papers = load_suite("smoke"), load_suite("alexnet")
    assert definitions.obstacle(NAME, "standard", suite, "alexnet-smoke") == ""
    assert definitions.obstacle(NAME, "standard", suite, "resnet-smoke") == ""
    assert definitions.obstacle(NAME, "standard", suite, "nin-smoke") == "nin-smoke takes no fc6 and fc7"
    assert definitions.obstacle(NAME, "kraehenbuehl2016", papers, "caffenet") == ""
    assert definitions.obstacle(NAME, "kraehenbuehl2016", suite, "caffenet") == "needs 224/227 px"
    assert definitions.obstacle(NAME, "kraehenbuehl2016", papers, "resnet50") == "resnet50 takes no fc6 and fc7"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"itarations": 3}, "overrides 'itarations', which voc07-classification does not have"),
        ({"all": {"frozen": [], "lr": 0.1}}, "settings.all.parts: Field required"),
        ({"crops": 0}, "test.random.crops: Input should be greater than 0"),
        ({"settings": {"fc6@8": FAST["all"]}}, "a setting is named by lower-case letters"),
        ({"settings": {}}, "settings: Dictionary should have at least 1 item"),
    ],
)
def test_a_bad_override_is_one_line(changes, line):
    suite = load_suite("smoke").model_copy(update={"protocols": {NAME: changes}})
    with pytest.raises(BenchError) as caught:
        definitions.load(NAME).variant("standard", suite, "alexnet-smoke")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_for_one_family_leaves_the_others_alone():
    spec = _protocol("resnet-smoke").spec
    assert (spec.iterations, spec.transfer.fc) == (60, ())
    assert _protocol().spec.transfer.fc == (32, 32)
