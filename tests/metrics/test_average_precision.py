"""AP against detectron2's evaluator, scikit-learn, a real detector's stored values, and by hand."""

from __future__ import annotations

import gzip
import json
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from bench.data.annotation import Annotation
from bench.data.voc_xml import CLASSES
from bench.errors import BenchError
from bench.metrics.average_precision import (
    COCO_THRESHOLDS,
    IMAGE_KINDS,
    KINDS,
    Detections,
    mean_ap,
    objects,
    overlaps,
    rank_detections,
    rank_detections_at,
    rank_images,
)
from bench.metrics.intervals import bootstrap, column


def annotation(*things, difficult=()):
    """From (label, x1, y1, x2, y2); ``difficult`` are positions."""
    table = np.array(things, dtype=np.float64).reshape(-1, 5)
    hard = np.isin(np.arange(len(table)), difficult)
    return Annotation(table[:, 1:].astype(np.float32), table[:, 0].astype(np.int64), hard, 500, 400)


def detections(*rows):
    """From (image, label, score, x1, y1, x2, y2)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Detections(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3:])


BOX, FAR, HALF = (0, 0, 10, 10), (50, 50, 60, 60), (0, 0, 10, 5)


class TestByHand:
    def test_hit_miss_hit(self):
        """Three objects, two found: precision 1 at recall 1/3, 2/3 at 2/3."""
        truth = objects([annotation((0, *BOX)), annotation((0, *BOX), (0, *FAR))])
        found = detections((0, 0, 0.9, *BOX), (1, 0, 0.8, 100, 100, 110, 110), (1, 0, 0.7, *FAR))
        ranked = rank_detections(found, truth, 1)
        assert ranked.ap("area")[0] == pytest.approx(1 / 3 + 2 / 3 / 3)
        assert ranked.ap("11-point")[0] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)

    def test_the_second_on_one_object_is_a_miss(self):
        truth = objects([annotation((0, *BOX), (0, *FAR))])
        found = detections((0, 0, 0.9, *BOX), (0, 0, 0.8, 0, 0, 10, 9), (0, 0, 0.7, *FAR))
        assert rank_detections(found, truth, 1).ap("area")[0] == pytest.approx(1 / 2 + 2 / 3 / 2)

    def test_a_taken_object_is_not_passed_by(self):
        """A detection goes to the object it overlaps most, even where another would be free."""
        near = (0, 0, 10, 12)
        truth = objects([annotation((0, *BOX), (0, *near))])
        found = detections((0, 0, 0.9, *BOX), (0, 0, 0.8, 0, 0, 10, 10.5))
        assert rank_detections(found, truth, 1).ap("area")[0] == pytest.approx(1 / 2)

    def test_difficult_objects_do_not_count(self):
        truth = objects([annotation((0, *BOX), (0, *FAR), difficult=[1])])
        found = detections((0, 0, 0.9, *FAR), (0, 0, 0.8, *FAR), (0, 0, 0.7, *BOX))
        assert rank_detections(found, truth, 1).ap("area")[0] == 1

    def test_exactly_half_is_no_hit(self):
        truth = objects([annotation((0, *BOX))])
        assert rank_detections(detections((0, 0, 0.9, *HALF)), truth, 1).ap("area")[0] == 0
        assert rank_detections(detections((0, 0, 0.9, *HALF)), truth, 1, 0.49).ap("area")[0] == 1

    def test_another_class_or_image_is_no_hit(self):
        truth = objects([annotation((0, *BOX), (1, *FAR)), annotation()])
        found = detections((0, 1, 0.9, *BOX), (1, 0, 0.9, *BOX))
        assert rank_detections(found, truth, 2).ap("area").tolist() == [0, 0]

    def test_no_objects_no_ap(self):
        truth = objects([annotation((0, *BOX), (2, *BOX), difficult=[1]), annotation()])
        ranked = rank_detections(detections((0, 0, 0.9, *BOX), (0, 1, 0.9, *BOX)), truth, 3)
        for kind in ("area", "11-point"):
            assert np.array_equal(ranked.ap(kind), [1, np.nan, np.nan], equal_nan=True)
            assert mean_ap([ranked], kind)(np.ones((1, 2), np.float32)) == [1]

    def test_nothing_found(self):
        truth = objects([annotation((0, *BOX))])
        assert rank_detections(detections(), truth, 2).ap("area")[0] == 0
        assert np.isnan(rank_detections(detections(), objects([annotation()]), 2).ap("area")).all()

    def test_equal_scores_stay_in_order(self):
        truth = objects([annotation((0, *BOX))])
        good, bad = (0, 0, 0.5, *BOX), (0, 0, 0.5, *FAR)
        assert rank_detections(detections(good, bad), truth, 1).ap("area")[0] == 1
        assert rank_detections(detections(bad, good), truth, 1).ap("area")[0] == 0.5

    def test_overlaps_broadcast(self):
        boxes = np.array([BOX, FAR, HALF], dtype=float)
        assert overlaps(boxes[:, None], boxes[None]).tolist() == [[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]]


class TestBadInput:
    def test_detections(self):
        truth = objects([annotation((0, *BOX))])
        for bad in ((1, 0, 0.5, *BOX), (0, 2, 0.5, *BOX), (0, 0, np.nan, *BOX), (0, 0, 0.5, 0, 0, np.inf, 1)):
            with pytest.raises(ValueError, match=r"are 0 to|finite"):
                rank_detections(detections(bad), truth, 2)

    def test_scores(self):
        for scores in (np.zeros((3, 2)), np.full((2, 2), np.nan), np.zeros(4)):
            with pytest.raises(ValueError, match="finite numbers"):
                rank_images(scores, np.zeros((2, 2), np.int8))

    def test_kind(self):
        with pytest.raises(BenchError, match="unknown kind of AP '11point': did you mean 11-point"):
            rank_images(np.zeros((2, 1)), np.ones((2, 1), np.int8)).ap("11point")
        with pytest.raises(BenchError, match="unknown kind of AP 'step'"):
            rank_detections(detections(), objects([annotation((0, *BOX))]), 1).ap("step")


def random_set(seed, images=40, classes=20, absent=(3,)):
    """Annotations and detections as detectron2 writes them: scores with 3 decimals, 1-based corners with one."""
    rng = np.random.default_rng(seed)
    known, rows = [], []
    usable = [label for label in range(classes) if label not in absent]
    for image in range(images):
        labels = rng.choice(usable, size=rng.integers(0, 6))
        corner = rng.integers(0, 200, size=(len(labels), 2))
        boxes = np.concatenate([corner, corner + rng.integers(20, 200, size=(len(labels), 2))], axis=1)
        hard = np.flatnonzero(rng.random(len(labels)) < 0.25)
        known.append(annotation(*np.column_stack([labels, boxes]), difficult=hard))
        for label, box in zip(labels, boxes, strict=True):
            for _ in range(rng.integers(0, 4)):
                shifted = box + rng.normal(0, 12, size=4)
                shifted[2:] = np.maximum(shifted[2:], shifted[:2] + 3)
                rows.append((image, label, rng.random(), *shifted))
        for _ in range(rng.integers(0, 5)):
            corner = rng.uniform(0, 200, 2)
            rows.append((image, rng.integers(classes), rng.random(), *corner, *(corner + rng.uniform(5, 150, 2))))
    table = np.array(rows)
    table[:, 2] = np.round(table[:, 2] * 0.9 + 0.05, 2 if seed % 2 else 3)  # many ties, and few
    table[:, 3:5] = np.round(table[:, 3:5] + 1, 1) - 1
    table[:, 5:] = np.round(table[:, 5:], 1)
    return known, detections(*table)


def write_devkit(folder, known, names):
    """What detectron2's evaluator reads."""
    for place in ("Annotations", "ImageSets/Main"):
        (folder / place).mkdir(parents=True)
    ids = [f"{i:06d}" for i in range(len(known))]
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(ids))
    for i, each in zip(ids, known, strict=True):
        things = "".join(
            f"<object><name>{names[label]}</name><pose>Left</pose><truncated>0</truncated>"
            f"<difficult>{difficult:d}</difficult><bndbox><xmin>{box[0] + 1:.0f}</xmin><ymin>{box[1] + 1:.0f}</ymin>"
            f"<xmax>{box[2]:.0f}</xmax><ymax>{box[3]:.0f}</ymax></bndbox></object>"
            for label, difficult, box in zip(each.labels, each.difficult, each.boxes, strict=True)
        )
        (folder / "Annotations" / f"{i}.xml").write_text(f"<annotation>{things}</annotation>")
    return ids


class TestDetectron2:
    """Its evaluator sorts equal scores in an order that depends on the machine; here it is made to keep them."""

    @pytest.mark.parametrize(("seed", "year"), [(0, 2007), (1, 2007), (2, 2012), (3, 2012)])
    def test_its_evaluator(self, seed, year, tmp_path, monkeypatch):
        pytest.importorskip("detectron2")
        import torch
        from detectron2.data import MetadataCatalog
        from detectron2.evaluation import PascalVOCDetectionEvaluator, pascal_voc_evaluation
        from detectron2.structures import Boxes, Instances

        known, found = random_set(seed, images=80, absent=(3,) if year == 2007 else ())
        ids = write_devkit(tmp_path / "kit", known, CLASSES)
        name = f"test-average-precision-{tmp_path.name}"
        MetadataCatalog.get(name).set(dirname=str(tmp_path / "kit"), split="test", year=year, thing_classes=[*CLASSES])
        evaluator, kind = PascalVOCDetectionEvaluator(name), "11-point" if year == 2007 else "area"
        evaluator.reset()
        for image, i in enumerate(ids):
            here = found.take(np.flatnonzero(found.image == image))
            instances = Instances((400, 500))
            instances.pred_boxes = Boxes(torch.from_numpy(here.boxes))
            instances.scores, instances.pred_classes = torch.from_numpy(here.scores), torch.from_numpy(here.labels)
            evaluator.process([{"image_id": i}], [{"instances": instances}])
        plain, per_class = np.argsort, {}
        monkeypatch.setattr(np, "argsort", lambda values: plain(values, kind="stable"))
        evaluate = pascal_voc_evaluation.voc_eval

        def listen(detpath, annopath, listed, name, ovthresh, use_07_metric):
            outcome = evaluate(detpath, annopath, listed, name, ovthresh, use_07_metric)
            per_class[round(ovthresh, 2), name] = outcome[2]
            return outcome

        monkeypatch.setattr(pascal_voc_evaluation, "voc_eval", listen)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            theirs = evaluator.evaluate()["bbox"]
        monkeypatch.undo()
        ranked = rank_detections_at(found, objects(known), 20)
        ours = np.array([each.ap(kind) for each in ranked])
        for row, threshold in zip(ours, COCO_THRESHOLDS, strict=True):
            for label, ap in enumerate(row):
                assert per_class[threshold, CLASSES[label]] == pytest.approx(np.nan_to_num(ap), abs=1e-12)
        absent_as_0 = 100 * np.nan_to_num(ours).mean(axis=1)
        assert absent_as_0.mean() == pytest.approx(theirs["AP"])
        assert absent_as_0[0] == pytest.approx(theirs["AP50"])
        assert absent_as_0[5] == pytest.approx(theirs["AP75"])
        assert np.isnan(ours).any() == (year == 2007)


@pytest.fixture(scope="session")
def real_detector(bench_data):
    """A real detector on VOC07 test: (detections, objects, stored AP by class)."""
    folder = bench_data / "voc-fixtures"
    with gzip.open(folder / "gt_voc07_test.json.gz") as file:
        truth = json.load(file)
    ids = sorted(truth)
    known = [
        annotation(
            *[(CLASSES.index(name), x1 - 1, y1 - 1, x2, y2) for name, x1, y1, x2, y2, _ in truth[i]],
            difficult=[k for k, thing in enumerate(truth[i]) if thing[5]],
        )
        for i in ids
    ]
    position, tables = {i: k for k, i in enumerate(ids)}, []
    for label, name in enumerate(CLASSES):
        with gzip.open(folder / f"detections/comp4_det_test_{name}.txt.gz", "rt") as file:
            rows = [line.split() for line in file]
        table = np.array([[position[row[0]], label, *row[1:]] for row in rows], dtype=np.float64)
        table[:, 3:5] -= 1
        tables.append(table)
    stored = json.loads((folder / "detections/stored_ap.json").read_text())["ap"]
    return detections(*np.concatenate(tables)), objects(known), stored


class TestRealDetector:
    def test_every_class(self, real_detector):
        found, truth, stored = real_detector
        ap = rank_detections(found, truth, 20).ap("11-point")
        assert dict(zip(CLASSES, ap, strict=True)) == pytest.approx(stored, abs=1e-4)
        assert ap.mean() == pytest.approx(0.539744, abs=1e-5)

    def test_a_bootstrap_takes_seconds(self, real_detector):
        found, truth, _ = real_detector
        started = time.process_time()
        low, high = bootstrap(mean_ap([rank_detections(found, truth, 20)], "11-point"), truth.images)
        assert time.process_time() - started < 15  # 2 on an idle core
        assert 0.52 < low < 0.539744 < high < 0.56


class TestClassification:
    @pytest.fixture
    def scores(self):
        rng = np.random.default_rng(0)
        present = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(300, 5)).astype(np.int8)
        return np.round(present + rng.normal(0, 1.5, present.shape), 1), present  # many ties

    def test_scikit_learns(self, scores):
        values, present = scores
        expected = [average_precision_score(p[p >= 0], v[p >= 0]) for v, p in zip(values.T, present.T, strict=True)]
        assert rank_images(values, present).ap("step") == pytest.approx(expected)

    def test_the_tie_break(self, scores):
        values, present = scores
        expected = [
            average_precision_score(p[p >= 0], v[p >= 0] - 1e-5 * p[p >= 0])
            for v, p in zip(values.T, present.T, strict=True)
        ]
        assert rank_images(values, present, tie_break=True).ap("step") == pytest.approx(expected)
        plain = rank_images(values, present).ap("step")
        assert (rank_images(values, present, tie_break=True).ap("step") <= plain).all()

    def test_a_constant_score(self):
        """Without the tie-break it gives the share of the true; with it, the worst order."""
        present = np.array([[1], [0], [0], [0]], np.int8)
        assert rank_images(np.zeros((4, 1)), present).ap("step") == [0.25]
        assert rank_images(np.zeros((4, 1)), present, tie_break=True).ap("step") == [0.25]
        two = np.array([[1], [1], [0], [0]], np.int8)
        assert rank_images(np.zeros((4, 1)), two, tie_break=True).ap("step") == [0.5]

    def test_difficult_images_do_not_count(self):
        scores = np.array([[0.9], [0.8], [0.7]])
        assert rank_images(scores, np.array([[-1], [1], [0]], np.int8)).ap("step") == [1]
        assert rank_images(scores, np.array([[0], [1], [0]], np.int8)).ap("step") == [0.5]

    def test_a_class_that_is_nowhere(self):
        assert np.isnan(rank_images(np.zeros((2, 1)), np.array([[0], [-1]], np.int8)).ap("step"))


class TestResamples:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS))
    def test_weights_are_copies_of_images(self, seed, kind):
        """A test set in which images stand several times gives what the weights give."""
        known, found = random_set(seed, images=12, classes=4, absent=())
        counts = np.random.default_rng(seed).integers(0, 4, size=12)
        counts[0] += counts.sum() == 0
        copies = np.repeat(np.arange(12), counts)
        rows = [np.flatnonzero(found.image == image) for image in copies]
        many = found.take(np.concatenate(rows))._replace(
            image=np.repeat(np.arange(len(copies)), [len(r) for r in rows])
        )
        expected = rank_detections(many, objects([known[i] for i in copies]), 4).ap(kind)
        weighted = rank_detections(found, objects(known), 4).resampled(kind, counts[None].astype(np.float32))[0]
        # equal scores within an image: the copies alternate where the weights do not
        distinct = all(len(set(found.scores[found.labels == c])) == (found.labels == c).sum() for c in range(4))
        if distinct:
            np.testing.assert_allclose(weighted, expected, atol=1e-6)

    def test_weights_are_copies_of_images_in_classification(self):
        rng = np.random.default_rng(3)
        present = rng.choice([-1, 0, 1], size=(30, 4)).astype(np.int8)
        scores, counts = np.round(rng.random((30, 4)), 1), rng.integers(0, 4, size=30)
        copies = np.repeat(np.arange(30), counts)
        for kind in IMAGE_KINDS:
            expected = rank_images(scores[copies], present[copies]).ap(kind)
            weighted = rank_images(scores, present).resampled(kind, counts[None].astype(np.float32))
            assert weighted[0] == pytest.approx(expected)

    def test_a_column(self):
        known, found = random_set(5, absent=())
        statistic = mean_ap(rank_detections_at(found, objects(known), 20, (0.5, 0.7)), "11-point")
        made = column(statistic, 40, chance=0.01)
        assert made["low"] < made["value"] < made["high"]
        by_hand = [np.nanmean(rank_detections(found, objects(known), 20, t).ap("11-point")) for t in (0.5, 0.7)]
        assert made["value"] == pytest.approx(100 * np.mean(by_hand))
        assert (made["n"], made["chance"], made["unit"]) == (40, 1.0, "%")
        assert made == column(statistic, 40, chance=0.01)

    def test_no_examples(self):
        with pytest.raises(ValueError, match="no examples"):
            bootstrap(lambda counts: counts.sum(axis=1), 0)
        with pytest.raises(ValueError, match="level"):
            bootstrap(lambda counts: counts.sum(axis=1), 3, level=1)
