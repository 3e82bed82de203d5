import copy
import importlib.metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench.backbones.base import build
from bench.data.annotation import Annotation
from bench.data.base import Sample
from bench.engines import install
from bench.errors import BenchError
from bench.metrics.intervals import column
from bench.metrics.miou import Confusions, by_setting, confusion
from bench.protocols import definitions
from bench.protocols.segmentation import Longest, Short
from bench.protocols.transfer import prepared
from bench.protocols.voc12_segmentation import CONFIG, FineTuned, Voc12Segmentation, _Masked
from bench.run import open_role
from bench.runfolder import RunFolder
from bench.suite import load as load_suite
from bench.training import optim
from bench.training.device import fabric
from bench.training.loop import Execution, Interrupted
from bench.training.recipe import SGD
from bench.training.task import Step

pytest.importorskip("mmseg")

NAME = "voc12-segmentation"
STEPS = {"kind": "steps", "parts": 3.0, "gamma": 0.3}
QUICK = {
    "fc": [32, 32],
    "fc_std": 0.2,
    "batches": 2,
    "pad": 16,
    "batch": 4,
    "iterations": 60,
    "fc6-8": {"frozen": ["trunk"], "lr": 0.01, "drop": STEPS},
    "all": {"frozen": [], "lr": 0.01, "drop": STEPS},
}
COLOURS = np.array([[120, 120, 120], [220, 40, 40], [40, 200, 60], [60, 60, 230]], np.uint8)


class ToyMasks:
    """Images of several sizes, each half one of three classes by its colour, half background, between them a border."""

    def __init__(self, size=24, name="toymasks/train", sides=(40, 64)):
        rng = np.random.default_rng(len(name))
        self.name, self.digest, self.classes = name, f"toy{size:013d}", ("red", "green", "blue")
        self.ids, self.labels = [f"{name}/{i:06d}" for i in range(size)], np.full(size, -1)
        self.masks = []
        for i in range(size):
            height, width = (int(n) for n in rng.integers(*sides, size=2))
            mask, middle = np.zeros((height, width), np.uint8), int(rng.integers(width // 3, 2 * width // 3))
            mask[:, :middle] = 1 + i % 3
            mask[:, middle - 1 : middle + 1] = 255
            self.masks.append(mask)
        noise = [rng.normal(0, 10, (3, *mask.shape)) for mask in self.masks]
        flat = [COLOURS[np.where(mask == 255, 0, mask)].transpose(2, 0, 1) for mask in self.masks]
        self.images = [(x + n).clip(0, 255).astype(np.uint8) for x, n in zip(flat, noise, strict=True)]
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
        self.annotations = [Annotation(*nothing, *mask.shape[::-1]) for mask in self.masks]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return Sample(torch.from_numpy(self.images[index]), index)

    def mask(self, index):
        return self.masks[index]


def _suite(**changes):
    return load_suite("smoke").model_copy(update={"protocols": {NAME: {**QUICK, **changes}}})


def _protocol(backbone="alexnet-smoke", **changes):
    return Voc12Segmentation(definitions.load(NAME).variant("standard", _suite(**changes), backbone))


def _backbone(key="alexnet-smoke"):
    torch.manual_seed(0)
    return build(key).eval()


def _folder(path):
    return RunFolder.create(path, {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0})


def _evaluate(*, attempt, protocol=None, key="alexnet-smoke", train=None, test=None, **how):
    return (protocol or _protocol(key)).evaluate(
        _backbone(key),
        train or ToyMasks(),
        test or ToyMasks(12, "toymasks/test"),
        method="m",
        seed=0,
        fabric=fabric(),
        attempt=attempt,
        how=Execution(**{"workers": 0, **how}),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _folder(tmp_path_factory.mktemp("run") / "r")


@pytest.fixture(scope="module")
def measured(folder):
    return _evaluate(attempt=folder.take("test"))


def _task(protocol, key="alexnet-smoke", train=None, test=None):
    from bench.engines import mmseg

    train, test = train or ToyMasks(), test or ToyMasks(6, "toymasks/test")
    seen = [ToyImages(16, side=28).images]
    dice = torch.Generator().manual_seed(0)
    ready = prepared(_backbone(key), seen, protocol.spec.transfer, method="m", generator=dice).backbone
    torch.manual_seed(0)
    model, _ = mmseg.segmenter(ready, protocol.spec.net, 1 + len(train.classes))
    return FineTuned(model, protocol.spec, _Masked(train), _Masked(test))


# what is measured


def test_it_learns_what_the_colours_show(measured):
    columns = Voc12Segmentation.columns(measured.evidence)
    for setting in ("fc6-8", "all"):
        number = columns[f"miou@{setting}"]
        assert number["low"] > number["chance"] + 10, number
        assert {"n": 12, "unit": "%"}.items() <= number.items()
        classes = [columns[f"iou_{name}@{setting}"]["value"] for name in ("background", "red", "green", "blue")]
        assert number["value"] == pytest.approx(np.mean(classes))
        losses = [record[f"loss_{setting}"] for record in measured.training["curve"]]
        assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_what_was_done_is_written_down(measured, folder):
    import mmengine

    assert measured.training["engine"].startswith("mmsegmentation 1.")
    assert measured.training["matched"] == "14 of 14 tensors"  # weights and biases of five convolutions, fc6 and fc7
    assert measured.training["transfer"]["steps"] == ["BatchNorm absorbed", "fc from gaussian", "rescaled"]
    assert (measured.training["updates"], measured.training["batch"]) == (60, 4)
    config = mmengine.Config.fromfile(folder.path / CONFIG)
    assert config.model.decode_head.type == "BenchFcn32sHead"
    assert "14 of 14 tensors" in (folder.path / "out.log").read_text()


def test_numbers_agree_with_mmsegmentations_metric():
    from mmseg.evaluation import IoUMetric

    dice = np.random.default_rng(0)
    masks = ToyMasks(8, "toymasks/test").masks
    guesses = [np.where(dice.random(m.shape) < 0.7, m % 4, dice.integers(0, 3, m.shape)) for m in masks]
    found = Confusions.of([confusion(g, m, 4) for g, m in zip(guesses, masks, strict=True)])
    evidence = {
        "cells": found.cells[None],
        "cell": found.cell,
        "pixels": found.pixels,
        "settings": np.array(["all"]),
        "classes": np.array(["background", "red", "green", "blue"]),
    }
    columns = Voc12Segmentation.columns(evidence)
    results = [
        IoUMetric.intersect_and_union(torch.from_numpy(g), torch.from_numpy(m).long(), 4, 255)
        for g, m in zip(guesses, masks, strict=True)
    ]
    areas = [sum(each) for each in zip(*results, strict=True)]
    theirs = IoUMetric.total_area_to_metrics(*areas, metrics=["mIoU"])["IoU"]
    ours = [columns[f"iou_{name}@all"]["value"] for name in evidence["classes"].tolist()]
    assert ours == pytest.approx(100 * theirs.astype(float), rel=1e-6)
    assert columns["miou@all"]["value"] == pytest.approx(100 * np.nanmean(theirs), rel=1e-6)
    chance = columns["miou@all"]["chance"] / 100
    assert columns["miou@all"] == pytest.approx(column(found.mean_iou, 8, chance))


def _evidence(*matrices):
    found = Confusions.of([np.array(matrix) for matrix in matrices])
    names = np.array(["background", "a", "b"])
    fields = {"cells": found.cells[None], "cell": found.cell, "pixels": found.pixels}
    return {**fields, "settings": np.array(["all"]), "classes": names}


def test_chance_is_to_call_everything_background():
    columns = Voc12Segmentation.columns(_evidence([[6, 0, 0], [2, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [2, 0, 0]]))
    assert columns["miou@all"]["value"] == columns["miou@all"]["chance"] == pytest.approx(100 * 0.6 / 3)
    assert columns["iou_background@all"]["chance"] == pytest.approx(60)
    assert columns["iou_a@all"]["value"] == columns["iou_a@all"]["chance"] == 0


def test_a_class_that_is_nowhere_has_no_column_and_one_that_is_guessed_has_0():
    columns = Voc12Segmentation.columns(_evidence([[6, 2, 0], [0, 0, 0], [0, 0, 0]]))
    assert "iou_b@all" not in columns
    assert columns["iou_a@all"]["value"] == 0
    assert columns["miou@all"]["value"] == pytest.approx(100 * 0.75 / 2)
    assert columns["miou@all"]["chance"] == 100, "all is background"


def test_evidence_is_small_and_held_against_the_masks(measured):
    test, evidence = ToyMasks(12, "toymasks/test"), measured.evidence
    assert sum(array.nbytes for array in evidence.values()) < 12 * 2 * 16 * 6 + 1000
    pixels = [int((mask != 255).sum()) for mask in test.masks]
    for confusions in by_setting(evidence).values():
        ends = np.cumsum(confusions.cells)[:-1]
        assert [part.sum() for part in np.split(confusions.pixels, ends)] == pixels
    assert Voc12Segmentation.contradictions(evidence, test) == []
    forged = dict(evidence, pixels=evidence["pixels"].copy())
    forged["pixels"][0] += 1
    assert Voc12Segmentation.contradictions(forged, test) == [
        "the evidence for fc6-8 contradicts the masks of 1 images"
    ]
    assert "other images" in Voc12Segmentation.contradictions(evidence, ToyMasks(12, "toymasks/other"))[0]
    test.classes = ("a", "b", "c")
    assert "other classes" in Voc12Segmentation.contradictions(evidence, test)[0]


def test_a_data_set_without_masks_is_refused():
    with pytest.raises(BenchError, match="toy/train has no masks"):
        _evaluate(attempt=None, train=SimpleNamespace(name="toy/train", classes=ToyMasks(1).classes))


def test_without_mmsegmentation_one_line_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(install.importlib.metadata, "distribution", missing)
    with pytest.raises(BenchError, match="mmsegmentation is missing.*bench install mmsegmentation"):
        _evaluate(attempt=None)


# training


def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, measured):
    folder, seen = _folder(tmp_path / "run"), []
    attempt = folder.take("test")
    with pytest.raises(Interrupted):
        _evaluate(attempt=attempt, progress=lambda done, of: seen.append(done), stop=lambda: len(seen) == 9)
    attempt.end("CANCELLED", "stopped on request")
    resumed = _evaluate(attempt=folder.take("test"), progress=lambda done, of: seen.append(done))
    assert seen == list(range(1, 61)), "it went on where it was"
    for key in ("cells", "cell", "pixels"):
        assert np.array_equal(resumed.evidence[key], measured.evidence[key])
    assert resumed.training["curve"] == measured.training["curve"]


def _batch(task, indices, view="view"):
    from bench.data.batch import Batch
    from bench.data.loader import collate

    data = task.data["train" if view == "view" else "test"].dataset
    views = [getattr(task, view)(data[i], np.random.default_rng(i)) for i in indices]
    return Batch(collate(views), torch.tensor(indices), torch.full((len(indices),), -1))


def test_an_image_costs_the_same_alone_and_among_others():
    task = _task(_protocol()).eval()
    for net in task.nets.values():
        torch.nn.init.normal_(net.decode_head.conv_seg.weight)
    together = dict(task.losses(_batch(task, [0, 1, 2, 3]), Step(0, 0, 1), None))
    alone = [dict(task.losses(_batch(task, [i]), Step(0, 0, 1), None)) for i in range(4)]
    for name, loss in together.items():
        assert loss.total.item() == pytest.approx(np.mean([each[name].total.item() for each in alone]), rel=1e-5)


def test_frozen_layers_do_not_move_and_scores_biases_go_twice_as_fast_without_decay():
    task = _task(_protocol())
    before = {name: copy.deepcopy(net.state_dict()) for name, net in task.nets.items()}
    words = SGD(lr=0.1, momentum=0.9, weight_decay=5e-4)
    for name, those in task.parameters_of().items():
        weights, biases = task.optimiser_of(name, words, those).param_groups
        assert (weights.get("times", 1), weights["weight_decay"]) == (1, 5e-4)
        assert (biases["times"], biases["weight_decay"], len(biases["params"])) == (2.0, 0.0, 1)
        assert len(weights["params"]) == len(list(those)) - 1
    optimisers = {name: task.optimiser_of(name, words, those) for name, those in task.parameters_of().items()}
    task.train()
    for _ in range(2):  # scores start at zero, so that the first update moves nothing else
        for name, loss in task.losses(_batch(task, [0, 1]), Step(0, 0, 1), None):
            optimisers[name].zero_grad()
            loss.total.backward()
            optimisers[name].step()
    moved = {
        name: {n.split(".")[0] for n, value in net.state_dict().items() if not torch.equal(value, before[name][n])}
        for name, net in task.nets.items()
    }
    assert moved == {"fc6-8": {"decode_head"}, "all": {"backbone", "decode_head"}}


def test_rates_drop_at_the_iterations_published():
    for name, setting, at, rates in (
        ("standard", "all", (0, 49_999, 50_000, 100_000), (1e-4, 1e-4, 1e-5, 1e-6)),
        ("fcn32s-zhang2016", "fc6-8", (0, 49_999, 50_000, 149_999), (1e-4, 1e-4, 1e-5, 1e-6)),
        ("fcn32s-shelhamer2017", "all", (0, 99_999), (1e-4, 1e-4)),
    ):
        protocol = Voc12Segmentation(definitions.load(NAME).variant(name))
        recipe, spec = protocol.recipe(8498), protocol.recipe(8498).optimisers()[setting]
        assert [optim.rate(spec, t / protocol.spec.iterations) for t in at] == pytest.approx(rates)
        assert (recipe.batch, spec.momentum, spec.weight_decay) == (20, 0.9, 5e-4)


# views


def test_whole_images_are_padded_and_say_how_much_of_them_is_image():
    task, data = _task(_protocol()), ToyMasks()
    view = task.view(data[3], None)
    height, width = data.masks[3].shape
    largest = tuple(max(mask.shape[i] for mask in data.masks) for i in range(2))
    assert view["image"].shape[1:] == view["mask"].shape == largest
    assert view["size"].tolist() == [height, width]
    assert torch.equal(view["image"][:, :height, :width], data[3].image)
    assert np.array_equal(view["mask"][:height, :width], data.masks[3])


def test_small_suites_shrink_images_but_are_measured_at_the_masks_own_size():
    task = _task(_protocol(longest=32))
    view = task.test_view(task.data["test"].dataset[2], None)
    height, width = task.data["test"].mask(2).shape
    assert max(view["size"].tolist()) == 32
    assert view["mask_size"].tolist() == [height, width]
    matrices = task.eval().confusions(_batch(task, [2, 4], "test_view"))
    assert matrices.shape == (2, 2, 4, 4)
    counted = [int((task.data["test"].mask(i) != 255).sum()) for i in (2, 4)]
    assert matrices.sum((2, 3)).tolist() == [[n, n] for n in counted]


def test_sizes():
    assert Longest(longest=0).of(375, 500) == (375, 500)
    assert Longest(longest=128).of(375, 500) == (96, 128)
    assert Longest(longest=128).of(100, 60) == (100, 60), "none grows"
    assert Short(short=512).of(375, 500) == (512, 683)


def test_crops_show_the_same_pixels_of_image_and_mask():
    net = {"train": {"kind": "crops", "side": 24, "scale": [0.5, 1.5]}, "short": 32, "kernel": "nearest"}
    task, data = _task(_protocol("resnet-smoke", **net), "resnet-smoke"), ToyMasks()
    sizes = set()
    for i in range(40):
        view = task.view(data[i % 24], np.random.default_rng(i))
        height, width = view["size"].tolist()
        assert view["image"].shape == (3, 24, 24)
        image, mask = view["image"][:, :height, :width].numpy(), view["mask"][:height, :width].numpy()
        distance = np.abs(image.transpose(1, 2, 0)[:, :, None].astype(int) - COLOURS).sum(-1)
        counted = mask != 255
        assert (distance.argmin(-1)[counted] == mask[counted]).mean() > 0.99
        sizes.add((height, width))
    assert (24, 24) in sizes
    assert len(sizes) > 5, "and images smaller than that"


def test_a_resnet_is_trained_whole_on_crops(tmp_path):
    small = {"train": {"kind": "crops", "side": 32, "scale": [0.5, 2.0]}, "short": 32, "iterations": 6}
    protocol = _protocol("resnet-smoke", **small)
    measured = _evaluate(attempt=_folder(tmp_path / "r").take("test"), protocol=protocol, key="resnet-smoke")
    assert measured.evidence["settings"].tolist() == ["all"]
    assert measured.training["matched"].startswith(f"{len(_backbone('resnet-smoke').state_dict())} of ")
    assert "miou@all" in Voc12Segmentation.columns(measured.evidence)


# variants


def test_variants_differ_and_say_what_tables_ask_for():
    found = definitions.load(NAME)
    digests = [found.variant(name).digest for name in found.variants]
    assert len(set(digests)) == len(digests)
    assert found.variant("fcn32s-zhang2016-color").definition["transfer"]["colour"]
    digest = {
        fc: found.variant("standard", _suite(fc_init=fc), "alexnet-smoke").digest for fc in ("gaussian", "kmeans")
    }
    assert len(set(digest.values())) == 2


@pytest.mark.parametrize("suite", ["alexnet", "resnet50"])
def test_the_papers_suites_need_sbd(suite, tmp_path):
    (tmp_path / "voc2012").mkdir()
    with pytest.raises(BenchError, match=r"cannot read the list of images: .*sbd/train.txt\): put cls, .* of SBD's"):
        open_role(load_suite(suite).role("voc12"), "train", data=tmp_path, cache=tmp_path)


def test_which_backbones_can_be_measured():
    suite, papers = load_suite("smoke"), load_suite("alexnet")
    assert definitions.obstacle(NAME, "standard", suite, "alexnet-smoke") == ""
    assert definitions.obstacle(NAME, "standard", suite, "resnet-smoke") == ""
    assert definitions.obstacle(NAME, "standard", suite, "resnet-v2-smoke") == "resnet-v2-smoke has no res5"
    assert definitions.obstacle(NAME, "standard", suite, "nin-smoke") == "nin-smoke takes no fc6 and fc7"
    assert definitions.obstacle(NAME, "fcn32s-zhang2016", papers, "caffenet") == ""
    assert definitions.obstacle(NAME, "fcn32s-zhang2016", suite, "caffenet") == "needs 224/227 px"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"itarations": 3}, "overrides 'itarations', which voc12-segmentation does not have"),
        ({"fc": []}, "fcn32s needs fc6 and fc7"),
        ({"pad": -1}, "net.fcn32s.pad: Input should be greater than or equal to 0"),
        ({"settings": {"fc6@8": QUICK["all"]}}, "a setting is named by lower-case letters"),
        ({"train": {"kind": "crops", "side": 0, "scale": [1, 1]}}, "train.crops.side: Input should be greater than 0"),
    ],
)
def test_a_bad_override_is_one_line(changes, line):
    suite = load_suite("smoke").model_copy(update={"protocols": {NAME: changes}})
    with pytest.raises(BenchError) as caught:
        definitions.load(NAME).variant("standard", suite, "alexnet-smoke")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
