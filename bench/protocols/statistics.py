"""What a column of a result is under resamples of its test examples, from its evidence alone: one function a kind of
evidence, named by a protocol's literal ``statistic``. No torch.

Each takes evidence and a column's name and gives a statistic: counts (r, N), how often each test example is in the
test set -> (r,), in %. Where every example is there once, it is the column's value.

Raises (all of them):
    KeyError, ValueError, IndexError: the evidence has no such column.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.metrics import detection_evidence, miou
from bench.metrics.average_precision import mean_ap, rank_detections_at, rank_images
from bench.metrics.intervals import Statistic
from bench.protocols.base import Evidence
from bench.protocols.definitions import metric_and_place


def of_ranks(evidence: Evidence, column: str) -> Statistic:
    """``top1@<stage>``, ``top5@<stage>``, from the rank of the true class."""
    metric, stage = metric_and_place(column)
    rank = evidence["rank"][evidence["stages"].tolist().index(stage)]
    hits = (rank < int(metric.removeprefix("top"))).astype(np.float32)
    return _percent(lambda counts: (counts @ hits).astype(np.float64) / len(hits))


def of_scores(evidence: Evidence, column: str) -> Statistic:
    """``map@<setting>``, ``ap_<class>@<setting>``, from the scores of each image for each class."""
    metric, setting = metric_and_place(column)
    scores = evidence["scores"][evidence["settings"].tolist().index(setting)]
    ranked = rank_images(scores, evidence["truth"], tie_break=bool(evidence["tie_break"]))
    if metric != "map":
        ranked = replace(ranked, classes=(ranked.classes[_class(evidence, metric)],))
    return _percent(mean_ap([ranked], str(evidence["ap"])))


def of_detections(evidence: Evidence, column: str) -> Statistic:
    """``map@<setting>``, ``ap_<class>@<setting>``, and COCO's ``ap``, ``ap50`` and ``ap75``."""
    metric, setting = metric_and_place(column)
    thresholds = evidence["thresholds"].tolist()
    overlaps = {"map": thresholds[:1], "ap": thresholds, "ap50": [0.5], "ap75": [0.75]}
    detections = detection_evidence.by_setting(evidence)[setting]
    truth = detection_evidence.restore_objects(evidence)
    ranked = rank_detections_at(detections, truth, len(evidence["classes"]), overlaps.get(metric, thresholds[:1]))
    if metric not in overlaps:
        ranked = [replace(one, classes=(one.classes[_class(evidence, metric)],)) for one in ranked]
    return _percent(mean_ap(ranked, str(evidence["ap"])))


def of_confusions(evidence: Evidence, column: str) -> Statistic:
    """``miou@<setting>``, ``iou_<class>@<setting>``, from each image's confusion matrix."""
    metric, setting = metric_and_place(column)
    confusions = miou.by_setting(evidence)[setting]
    if metric == "miou":
        return _percent(confusions.mean_iou)
    at = evidence["classes"].tolist().index(metric.removeprefix("iou_"))
    return _percent(lambda counts: confusions.resampled(counts)[:, at])


def _class(evidence: Evidence, metric: str) -> int:
    found: int = evidence["classes"].tolist().index(metric.removeprefix("ap_"))
    return found


def _percent(share: Statistic) -> Statistic:
    def percent(counts: NDArray[np.float32]) -> NDArray[np.float64]:
        return 100 * share(counts)

    return percent
