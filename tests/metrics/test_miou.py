"""mIoU by hand, against mmsegmentation's metric, and under resamples."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.intervals import bootstrap, column
from bench.metrics.miou import Confusions, confusion


def picture(seed, classes=21, used=None, side=24):
    """(prediction, truth) that agree in most places."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(used or classes, size=(side, side + 3)).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.7, truth, rng.choice(used or classes, size=truth.shape))
    truth[rng.random(truth.shape) < 0.1] = 255
    return prediction, truth


def test_by_hand():
    truth = np.array([[0, 0, 1], [1, 255, 2]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 2, 0]])
    matrix = confusion(prediction, truth, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    iou = Confusions.of([matrix]).iou()
    assert iou[:3].tolist() == [1 / 3, 2 / 3, 0]
    assert np.isnan(iou[3])
    assert Confusions.of([matrix]).mean_iou(np.ones((1, 1), np.float32)) == pytest.approx([1 / 3])


def test_a_class_that_is_only_predicted_has_0():
    iou = Confusions.of([confusion(np.array([[0, 1]]), np.array([[0, 0]], np.uint8), 3)]).iou()
    assert iou[:2].tolist() == [0.5, 0]
    assert np.isnan(iou[2])


@pytest.mark.parametrize("absent", [0, 5])
def test_mmsegmentations(absent):
    metric = pytest.importorskip("mmseg.evaluation").IoUMetric
    import torch

    used = list(range(21 - absent))
    pictures = [picture(seed, used=used) for seed in range(8)]
    theirs = metric(iou_metrics=["mIoU"])
    theirs.dataset_meta = {"classes": [str(i) for i in range(21)]}
    for prediction, truth in pictures:
        sample = {
            "pred_sem_seg": {"data": torch.from_numpy(prediction.astype(np.int64))},
            "gt_sem_seg": {"data": torch.from_numpy(truth.astype(np.int64))},
        }
        theirs.process({}, [sample])
    totals = [sum(parts) for parts in zip(*theirs.results, strict=True)]
    per_class = theirs.total_area_to_metrics(*totals, ["mIoU"])["IoU"]
    found = Confusions.of(confusion(*each) for each in pictures)
    np.testing.assert_allclose(found.iou(), per_class, rtol=1e-6)  # theirs counts in float32
    assert np.isnan(found.iou()).sum() == absent
    mean = 100 * found.mean_iou(np.ones((1, 8), np.float32))[0]
    assert mean == pytest.approx(theirs.compute_metrics(theirs.results)["mIoU"], abs=0.006)  # theirs rounds


def test_the_matrix_of_the_set_is_the_sum():
    matrices = [confusion(*picture(seed)) for seed in range(5)]
    found = Confusions.of(matrices)
    assert np.array_equal(found.total(), sum(matrices))
    assert found.total().dtype == np.int64
    assert (found.images, len(found.cell)) == (5, sum((matrix > 0).sum() for matrix in matrices))


def test_evidence_is_compact_and_exact():
    """As arrays on disk: what is built from them again gives the same."""
    found = Confusions.of(confusion(*picture(seed, used=[0, 3, 15])) for seed in range(20))
    assert (found.cells.dtype, found.cell.dtype, found.pixels.dtype) == (np.uint16, np.uint16, np.uint32)
    again = Confusions(found.cells.copy(), found.cell.copy(), found.pixels.copy())
    assert np.array_equal(again.iou(), found.iou(), equal_nan=True)


def test_large_counts_stay_exact():
    matrix = np.zeros((21, 21), np.int64)
    matrix[0, 0], matrix[0, 1] = 4_000_000_000, 1
    found = Confusions.of([matrix] * 2000)
    assert found.total()[0].tolist()[:2] == [8_000_000_000_000, 2000]
    assert found.iou()[0] == 4_000_000_000 / 4_000_000_001


def test_weights_are_copies_of_images():
    matrices = [confusion(*picture(seed, used=[0, 1, 2, seed + 3])) for seed in range(6)]
    counts = np.array([[0, 1, 3, 0, 2, 0], [1, 1, 1, 1, 1, 1]], np.float32)
    found = Confusions.of(matrices).resampled(counts)
    copies = [m for m, n in zip(matrices, counts[0], strict=True) for _ in range(int(n))]
    assert np.array_equal(found[0], Confusions.of(copies).iou(), equal_nan=True)
    assert np.array_equal(found[1], Confusions.of(matrices).iou(), equal_nan=True)


def test_a_bootstrap():
    found = Confusions.of(confusion(*picture(seed)) for seed in range(60))
    made = column(found.mean_iou, found.images, chance=0.035)
    assert made["low"] < made["value"] < made["high"]
    assert bootstrap(found.mean_iou, 60) == (made["low"] / 100, made["high"] / 100)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), np.uint8)),
        (np.full((2, 2), 21), np.zeros((2, 2), np.uint8)),
        (np.full((2, 2), -1), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 2), int), np.full((2, 2), 254, np.uint8)),
    ],
)
def test_bad_input(prediction, truth):
    with pytest.raises(ValueError, match=r"shape|are 0 to 20"):
        confusion(prediction, truth)


def test_nothing():
    assert confusion(np.full((2, 2), 99), np.full((2, 2), 255, np.uint8)).sum() == 0
    with pytest.raises(ValueError, match="at least one"):
        Confusions.of([])
