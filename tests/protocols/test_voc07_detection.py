import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bench import plan
from bench.backbones.base import build
from bench.data.proposals import Proposals, SelectiveSearch, compute
from bench.data.scenes_voc import ScenesVoc
from bench.engines import install
from bench.errors import BenchError
from bench.metrics.average_precision import Detections, objects, rank_detections
from bench.metrics.detection_evidence import by_setting
from bench.protocols import definitions
from bench.protocols.voc07_detection import (
    Detectors,
    Voc07Detection,
    _packed,
    chance,
)
from bench.runfolder import RunFolder
from bench.suite import load as load_suite
from bench.training import optim
from bench.training.device import fabric
from bench.training.loop import Execution, Interrupted
from bench.training.task import Batch, Step

pytest.importorskip("detectron2")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

NAME = "voc07-detection"
SMALL = {"train_short": [64, 80], "train_long": 128, "test_short": 64, "test_long": 128, "batch": 2, "rois": 32} | {
    "fc": [48, 48], "fc_std": 0.2, "batches": 2, "proposals": 300, "anchors": [8, 16, 32], "precise": 3
}  # fmt: skip
FAST = {"all": {"frozen": ["conv1"], "lr": 0.004, "drops": [0.7]}}


def _suite(**changes):
    return load_suite("smoke").model_copy(update={"protocols": {NAME: {**SMALL, **FAST, **changes}}})


def _protocol(backbone="alexnet-smoke", **changes):
    return Voc07Detection(definitions.load(NAME).variant("standard", _suite(**changes), backbone))


def _backbone(key="alexnet-smoke"):
    torch.manual_seed(0)
    return build(key).eval()


def _scenes(split="trainval", size=24):
    return ScenesVoc((split,), size, 64)


def _folder(path):
    return RunFolder.create(path, {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0})


def _evaluate(attempt, backbone="alexnet-smoke", test=None, workers=0, train=None, protocol=None, **how):
    changes = how.pop("changes", {})
    return (protocol or _protocol(backbone, **changes)).evaluate(
        _backbone(backbone),
        train or _scenes(),
        test or _scenes(),
        method="rotation",
        seed=0,
        fabric=fabric(),
        attempt=attempt,
        how=Execution(workers=workers, **how),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _folder(tmp_path_factory.mktemp("voc") / "run")


@pytest.fixture(scope="module")
def measured(folder):
    """Trained and tested on the same few images."""
    return _evaluate(folder.take("test"), changes={"iterations": 450})


# what is measured


def test_it_learns_to_find_what_it_was_shown(measured, folder):
    losses = [point["loss_all"] for point in measured.training["curve"]]
    assert np.mean(losses[-20:]) < 0.85 * np.mean(losses[:20])
    columns = Voc07Detection.columns(measured.evidence)
    assert set(columns) == {"map@all"} | {f"ap_{name}@all" for name in ScenesVoc.classes}
    for column in columns.values():
        assert column["low"] <= column["value"] <= column["high"]
        assert (column["n"], column["unit"]) == (24, "%")
    found = columns["map@all"]
    assert 0 < found["chance"] < 1
    assert found["value"] > 5 * found["chance"]
    assert found["value"] == pytest.approx(np.mean([c["value"] for k, c in columns.items() if k.startswith("ap_")]))


def test_the_run_tells_what_it_was_made_of(measured, folder):
    log = (folder.path / "out.log").read_text()
    assert "100 % matched; BatchNorm absorbed, fc from gaussian, rescaled; all of them are in the detector" in log
    written = (folder.path / "detectron2.yaml").read_text()
    assert "BenchTrunk" in written
    assert "NUM_CLASSES: 20" in written
    assert measured.training["transfer"]["matched"] == "100 %"
    assert measured.training["engine"] in written.splitlines()[0]
    assert set(measured.training["proposals"]) == {"train", "test"}
    assert {"loss_cls_all", "loss_box_reg_all"} <= measured.training["curve"][0].keys()


def test_numbers_are_those_of_the_rounded_evidence(measured):
    evidence, data = measured.evidence, _scenes()
    assert {key: evidence[key].dtype.name for key in ("count", "label", "score", "box", "truth_difficult")} == {
        "count": "uint8", "label": "uint8", "score": "float16", "box": "uint16", "truth_difficult": "bool"
    }  # fmt: skip
    assert evidence["count"].max() <= 100
    assert len(evidence["box"]) == evidence["count"].sum()
    (found,) = by_setting(evidence).values()
    aps = rank_detections(found, objects(data.annotations), 20).ap("11-point")
    columns = Voc07Detection.columns(evidence)
    assert columns["map@all"]["value"] == pytest.approx(100 * np.nanmean(aps))
    assert columns[f"ap_{data.classes[0]}@all"]["value"] == pytest.approx(100 * aps[0])


def test_evidence_is_held_against_the_annotations(measured):
    data = _scenes()
    assert Voc07Detection.contradictions(measured.evidence, data) == []
    boxes = measured.evidence["truth_box"].copy()
    boxes[3, 0] += 10
    forged = dict(measured.evidence, truth_box=boxes)
    assert Voc07Detection.contradictions(forged, data) == ["the evidence contradicts the annotations (truth_box)"]
    assert "other images" in Voc07Detection.contradictions(measured.evidence, _scenes("test"))[0]
    data.classes = tuple(reversed(data.classes))
    assert "other classes" in Voc07Detection.contradictions(measured.evidence, data)[0]


def test_a_class_that_no_test_image_shows_has_no_column(measured):
    by_chance = measured.evidence["chance"].copy()
    by_chance[:, 4] = np.nan
    there = measured.evidence["truth_label"] != 4
    count = np.repeat(np.arange(24), measured.evidence["truth_count"])[there]
    evidence = dict(
        measured.evidence,
        chance=by_chance,
        truth_count=np.bincount(count, minlength=24),
        **{key: measured.evidence[key][there] for key in ("truth_label", "truth_box", "truth_difficult")},
    )
    columns = Voc07Detection.columns(evidence)
    assert f"ap_{ScenesVoc.classes[4]}@all" not in columns
    others = [column["value"] for name, column in columns.items() if name.startswith("ap_")]
    assert len(others) == 19
    assert columns["map@all"]["value"] == pytest.approx(np.mean(others))


def test_the_detections_of_each_setting_come_back_as_they_were_rounded():
    rows = np.full((3, 2, 100, 6), -1, np.float32)
    rows[0, 0, 0] = (4, 0.5, 1.04, 2, 30.06, 40)
    rows[0, 0, 1] = (7, 0.75, 0, 0, 5, 6)
    rows[2, 1, 0] = (19, 0.25, 10, 20, 30, 500)
    evidence = {**_packed(rows, 3), "settings": np.array(["fc6-8", "all"])}
    assert evidence["count"].tolist() == [[2, 0, 0], [0, 0, 1]]
    found = by_setting(evidence)
    first, second = found["fc6-8"], found["all"]
    assert first.labels.tolist() == [7, 4], "the highest score first"
    assert first.boxes[1].tolist() == [1.0, 2.0, 30.1, 40.0]
    assert (second.image.tolist(), second.labels.tolist(), second.scores.tolist()) == ([2], [19], [0.25])


def test_chance_is_to_score_all_proposals_of_a_class_alike():
    data = _scenes("test", 20)
    some = Proposals([np.concatenate([known.boxes, known.boxes / 4]) for known in data.annotations])
    found = chance(some, data, (0.5,), "11-point")
    image = np.repeat(np.arange(20), [len(boxes) for boxes in some])
    boxes = np.concatenate(list(some)).astype(np.float64)
    for label in (0, 7):
        alike = Detections(image, np.full(len(image), label), np.full(len(image), 0.5), boxes)
        by_hand = rank_detections(alike, objects(data.annotations), 20).ap("11-point")[label]
        assert found[0, label] == by_hand
    whole = chance(None, data, (0.5, 0.75), "area")
    assert whole.shape == (2, 20)
    assert (whole[0] >= whole[1]).all()


# training


def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path):
    """Regions are drawn by torch's global generator, which the loop seeds before each update; dropout too."""
    changes = {
        "iterations": 12,
        "settings": {"fc6-8": {"frozen": ["trunk"], "lr": 0.004, "drops": []}, **FAST},
    }
    whole = _evaluate(_folder(tmp_path / "whole").take("test"), changes=changes)
    cut, seen = _folder(tmp_path / "cut"), []
    attempt = cut.take("test")
    with pytest.raises(Interrupted):
        _evaluate(attempt, changes=changes, progress=lambda done, of: seen.append(done), stop=lambda: len(seen) == 7)
    attempt.end("CANCELLED")
    resumed = _evaluate(cut.take("test"), changes=changes, progress=lambda done, of: seen.append(done))
    assert seen == list(range(1, 13)), "it went on where it was"
    assert resumed.training["curve"] == whole.training["curve"]
    assert resumed.evidence.keys() == whole.evidence.keys()
    for key in ("count", "label", "score", "box"):
        assert np.array_equal(resumed.evidence[key], whole.evidence[key])
    assert {name for name in Voc07Detection.columns(whole.evidence) if name.startswith("map")} == {
        "map@fc6-8", "map@all"
    }  # fmt: skip


def test_a_resnet_becomes_a_faster_rcnn_and_is_measured_as_moco_does(tmp_path):
    resnet = {"backbone": "resnet-smoke", "changes": {"iterations": 4, "rois": 16}}
    measured = _evaluate(_folder(tmp_path / "run").take("test"), test=_scenes("test", 20), **resnet)
    assert {"loss_rpn_cls_all", "loss_rpn_loc_all", "loss_cls_all"} <= measured.training["curve"][0].keys()
    assert measured.training["transfer"] == {"matched": "100 %", "steps": []}
    assert "proposals" not in measured.training
    columns = Voc07Detection.columns(measured.evidence)
    assert {"map@all", "ap@all", "ap50@all", "ap75@all"} <= columns.keys()
    assert columns["map@all"] == columns["ap50@all"]
    found = (objects(_scenes("test", 20).annotations), 20)
    (detections,) = by_setting(measured.evidence).values()
    at75 = rank_detections(detections, *found, threshold=0.75).ap("11-point")
    assert columns["ap75@all"]["value"] == pytest.approx(100 * np.nanmean(at75))
    again = _evaluate(_folder(tmp_path / "again").take("test"), test=_scenes("test", 20), **resnet)
    assert np.array_equal(again.evidence["score"], measured.evidence["score"])


def _task(backbone="alexnet-smoke", proposals=True, **changes):
    from bench.engines import detectron2

    data = _scenes(size=20)
    protocol = _protocol(backbone, **changes)
    some = Proposals([np.concatenate([known.boxes, known.boxes + 1]) for known in data.annotations])
    net = build(backbone, **({"norm": "none", "fc": (48, 48)} if proposals else {}))
    detector = detectron2.detector(net, protocol.spec, 20)[0]
    known = (data, some if proposals else None)
    return Detectors(detector, net, protocol.spec, known, known), data


def test_frozen_layers_do_not_move():
    task, _ = _task(settings={"fc6-8": {"frozen": ["trunk"], "lr": 0.1, "drops": []}, **FAST})
    learn = {name: {id(p) for p in those} for name, those in task.parameters_of().items()}
    still = {
        setting: {name for name, p in net.named_parameters() if id(p) not in learn[setting]}
        for setting, net in task.nets.items()
    }
    assert {name.rsplit(".", 2)[0] for name in still["all"]} == {"backbone.net.conv1"}
    assert {name.rsplit(".", 2)[0] for name in still["fc6-8"]} == {f"backbone.net.conv{i}" for i in range(1, 6)}
    assert not learn["all"] & learn["fc6-8"], "no weight is shared"


def test_statistics_become_those_of_some_batches():
    task, data = _task("resnet-smoke", proposals=False, precise=2)
    net = task.nets["all"].backbone.net
    norm, held = net.res2[1].bn1, net.conv1.norm
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].mean((0, 2, 3))))
    for each in (norm, held):
        each.running_mean.fill_(100)
    task.average_statistics_(data, seed=0, fabric=fabric(), how=Execution(workers=0))
    assert len(seen) == 2
    assert torch.allclose(norm.running_mean, torch.stack(seen).mean(0), atol=1e-5)
    assert norm.momentum == 0.1
    assert (held.running_mean == 100).all(), "conv1 is frozen"


def test_frozen_statistics_keep_their_scales_and_shifts():
    def parts(statistics):
        net = _task("resnet-smoke", proposals=False, statistics=statistics, extra_norm=False)[0].train().nets["all"]
        norms = [each for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d)]
        moving = sum(norm.training for norm in norms)
        return moving, {name for name, p in net.named_parameters() if p.requires_grad}, norms

    moving, learn, norms = parts("frozen")
    assert norms
    assert not moving
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    moving, fixed, _ = parts("fixed")
    assert not moving
    assert {name.split(".")[-2] for name in fixed - learn} <= {"bn1", "bn2", "bn3", "norm", "1"}
    assert learn < fixed


def test_fixed_statistics_stay():
    task, _ = _task("resnet-smoke", proposals=False, statistics="fixed")
    norms = [m for m in task.train().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert task.nets["all"].training


# views


def test_views_carry_objects_and_proposals_through_the_loaders_padding():
    task, data = _task(difficult=False)
    views = [task.view(data[i], np.random.default_rng(i)) for i in range(8)]
    batch = Batch({k: torch.stack([torch.as_tensor(v[k]) for v in views]) for k in views[0]}, torch.arange(8), None)
    sides = set()
    for one, known in zip(task._unpadded(batch), data.annotations, strict=False):
        height = one.image.shape[1]
        sides.add(height)
        scale = height / known.height
        easy = known.boxes[~known.difficult]
        assert (len(one.boxes), len(one.proposals)) == (len(easy), 2 * len(known.boxes))
        mirrored = np.stack([known.width - easy[:, 2], easy[:, 1], known.width - easy[:, 0], easy[:, 3]], 1)
        assert any(np.allclose(one.boxes, boxes * scale, atol=1e-3) for boxes in (easy, mirrored))
        assert one.labels.tolist() == known.labels[~known.difficult].tolist()
        assert one.image.float().std() > 1
    assert sides == {64, 80}


def test_an_image_is_tested_alone_at_one_size():
    task, data = _task(test_short=96)
    view = task.test_view(data[3], None)
    assert view["size"].tolist() == [96, 96]
    views = {key: torch.as_tensor(value)[None] for key, value in view.items()}
    with torch.no_grad():
        rows = task.eval().detections(Batch(views, torch.tensor([3]), None))
    assert rows.shape == (1, 1, 100, 6)
    found = rows[0, 0][rows[0, 0, :, 0] >= 0]
    assert len(found)
    assert found[:, 2:].min() >= 0
    assert found[:, 2:].max() <= 64, "in pixels of the image itself"


def test_a_batch_without_a_single_object_trains():
    task, data = _task()
    view = task.view(data[0], np.random.default_rng(0))
    view |= {"objects": 0, "proposed": 0}
    views = {key: torch.stack([torch.as_tensor(value)] * 2) for key, value in view.items()}
    ((name, loss),) = task.train().losses(Batch(views, torch.zeros(2, dtype=torch.int64), None), Step(0, 0, 1), None)
    assert (name, loss.total.item()) == ("all", 0)


# proposals


def test_many_missing_proposals_are_asked_for_and_few_are_found(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    attempt, data, protocol = _folder(tmp_path).take("test"), _scenes(size=20), _protocol()
    monkeypatch.setattr("bench.protocols.voc07_detection._SOON", 20 * 64 * 64 - 1)
    with pytest.raises(BenchError, match="has no proposals .*bench data proposals scenes-voc --split trainval"):
        protocol._proposals(data, 0, fabric(), attempt, Execution())
    monkeypatch.undo()
    found = protocol._proposals(data, 0, fabric(), attempt, Execution(workers=0))
    assert len(found) == 20
    search = SelectiveSearch("fast", None, 300)
    assert compute(data, search, tmp_path / ".cache", workers=0).digest == found.digest


def test_published_proposals_are_read_instead(tmp_path):
    import pickle

    data = _scenes(size=20)
    data.ids = [f"{i:06d}" for i in range(20)]
    boxes = [known.boxes for known in data.annotations]
    files = [tmp_path / "train.pkl", tmp_path / "test.pkl"]
    for file, shift in zip(files, (0, 1), strict=True):
        stored = {"ids": list(range(20)), "boxes": [b + shift for b in boxes], "objectness_logits": []}
        file.write_bytes(pickle.dumps(stored))
    protocol = _protocol(published=[str(file) for file in files])
    found = [protocol._proposals(data, which, fabric(), None, Execution()) for which in (0, 1)]
    assert np.array_equal(found[0][3], boxes[3])
    assert np.array_equal(found[1][3], np.minimum(boxes[3] + 1, 64))


# variants


def test_rates_drop_at_the_iterations_published():
    standard = Voc07Detection(definitions.load(NAME).variant("standard", None, "alexnet")).recipe(5011)
    spec = standard.optimisers()["all"]
    at = (0, 49_999, 50_000, 99_999, 100_000, 149_999)
    rates = [optim.rate(spec, Step(0, t, 150_000).done) for t in at]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert (standard.batch, spec.weight_decay, spec.momentum) == (2, 5e-4, 0.9)
    resnet = Voc07Detection(definitions.load(NAME).variant("standard", None, "resnet50")).recipe(16551)
    spec = resnet.optimisers()["all"]
    at = (50, 100, 17_999, 18_000, 21_999, 22_000)
    rates = [optim.rate(spec, Step(0, t, 24_000).done) for t in at]
    assert rates == pytest.approx([0.01, 0.02, 0.02, 0.002, 0.002, 0.0002])
    for variant, updates, drop in (("voc07", 12_500, 9_500), ("voc0712", 25_000, 17_000)):
        pirl = Voc07Detection(definitions.load(NAME).variant(f"r50c4-pirl2020-{variant}", None, "resnet50"))
        spec = pirl.recipe(5011).optimisers()["all"]
        rates = [optim.rate(spec, Step(0, t, updates).done) for t in (50, 100, drop - 1, drop, updates - 1)]
        assert rates == pytest.approx([0.01, 0.02, 0.02, 0.002, 0.002])


def test_which_backbones_can_be_measured():
    suite, papers = load_suite("smoke"), load_suite("alexnet")
    assert definitions.obstacle(NAME, "standard", suite, "alexnet-smoke") == ""
    assert definitions.obstacle(NAME, "standard", suite, "resnet-smoke") == ""
    assert definitions.obstacle(NAME, "standard", suite, "resnet-v2-smoke") == "resnet-v2-smoke has no res5"
    assert definitions.obstacle(NAME, "standard", suite, "nin-smoke") == "nin-smoke takes no fc6 and fc7"
    assert definitions.obstacle(NAME, "frcnn-kraehenbuehl2016", papers, "caffenet") == ""
    assert definitions.obstacle(NAME, "frcnn-kraehenbuehl2016", suite, "caffenet") == "needs 224/227 px"
    assert definitions.obstacle(NAME, "r50c4-moco2020", papers, "caffenet") == "needs 224 px"
    assert definitions.obstacle(NAME, "r50c4-pirl2020-voc07", load_suite("resnet50"), "resnet50") == ""


def test_resnets_are_trained_on_both_years_and_tested_on_one():
    def role(suite, backbone, variant="standard"):
        parent = plan.pretrain(load_suite(suite), "rotation", lambda role, split: None, seed=0, backbone=backbone)
        return plan.evaluate(load_suite(suite), parent, NAME, variant, lambda role, split: None).spec["role"]

    both = {"dataset": "voc2007", "train": ["trainval"], "test": ["test"], "train_options": {"also": "voc2012"}}
    assert role("resnet50", "resnet50") == role("resnet50", "resnet50", "r50c4-moco2020") == both
    assert role("resnet50", "resnet50", "r50c4-pirl2020-voc0712") == both
    one = {key: both[key] for key in ("dataset", "train", "test")}
    assert role("alexnet", "alexnet") == role("resnet50", "resnet50", "r50c4-pirl2020-voc07") == one
    with pytest.raises(BenchError, match="suite 'smoke' binds no data set to the role 'voc0712'"):
        role("smoke", "resnet-smoke")


def test_every_variant_is_another():
    found = definitions.load(NAME)
    digests = [found.variant(name, None, backbone).digest for name, backbone in found.places()]
    assert len(set(digests)) == len(digests)
    colour = [name for name in found.variants if found.variant(name).definition["transfer"].get("colour")]
    assert colour == ["frcnn-kraehenbuehl2016-rescaled-color"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"itarations": 3}, "overrides 'itarations', which voc07-detection does not have"),
        ({"background_iou": [0.1, 0.4]}, "background ends where foreground begins"),
        ({"train_short": []}, "train_short: Tuple should have at least 1 item"),
        ({"antialias": False}, "antialias: Input should be True"),
        ({"settings": {}}, "settings: Dictionary should have at least 1 item"),
        ({"all": {"frozen": [], "lr": 0.1, "drops": [1.5]}}, "settings.all.drops.0: Input should be less than 1"),
    ],
)
def test_a_bad_override_is_one_line(changes, line):
    suite = load_suite("smoke").model_copy(update={"protocols": {NAME: changes}})
    with pytest.raises(BenchError) as caught:
        definitions.load(NAME).variant("standard", suite, "alexnet-smoke")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


# without detectron2, without annotations


def test_without_detectron2_one_line_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(install._DISTRIBUTIONS, "detectron2", "a-distribution-that-is-not-there")
    with pytest.raises(BenchError) as caught:
        _evaluate(None)
    assert str(caught.value) == "detectron2 is missing: it is not installed: run `bench install detectron2`"


def test_the_protocol_itself_imports_no_engine():
    code = (
        "import sys, json, bench.protocols.voc07_detection; "
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in ('detectron2', 'mmseg', 'fvcore')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_data_set_without_annotations_is_refused():
    from toydata import ToyImages

    with pytest.raises(BenchError, match="toy/train has no annotations"):
        _evaluate(None, train=ToyImages())
