"""Recall of objects by proposals, by hand."""

from __future__ import annotations

import numpy as np

from bench.data.annotation import Annotation
from bench.metrics.proposal_recall import recall


def annotation(boxes, difficult=()):
    table = np.array(boxes, np.float32).reshape(-1, 4)
    return Annotation(table, np.zeros(len(table), np.int64), np.isin(np.arange(len(table)), difficult), 100, 100)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_by_hand():
    known = [annotation([(0, 0, 10, 10), (50, 50, 60, 60)]), annotation([(0, 0, 10, 10)])]
    found = [boxes((0, 0, 10, 5), (50, 50, 60, 54)), boxes()]
    assert recall(found, known) == 1 / 3
    assert recall(found, known, 0.4) == 2 / 3
    assert recall(found, known, 0.51) == 0


def test_difficult_ones_do_not_count():
    known = [annotation([(0, 0, 10, 10), (50, 50, 60, 60)], difficult=[1])]
    assert recall([boxes((0, 0, 10, 10))], known) == 1


def test_no_objects():
    assert np.isnan(recall([boxes((0, 0, 1, 1))], [annotation([])]))
