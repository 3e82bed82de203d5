"""The held-out slice: a fixed function of the data set."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.heldout import held_out
from bench.errors import BenchError

SHARES = st.integers(0, 99).map(lambda percent: percent / 100)
LABELS = st.lists(st.integers(-1, 4), max_size=60)


def names(labels):
    return [f"train/{label}/{i}.jpg" for i, label in enumerate(labels)]


def test_by_hand():
    ids = ["a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg", "u/1.jpg"]
    labels = np.array([0, 0, 0, 0, 1, 1, 2, -1])
    held = held_out(ids, labels, 0.25)
    # sha256 of a/1 .. a/4: 77, 00, 25, d1; of b/1, b/2: c2, 72. One of four, one of two, none of one.
    assert [i for i, h in zip(ids, held, strict=True) if h] == ["a/2.jpg", "b/2.jpg"]


@given(LABELS, SHARES)
def test_each_class_gives_its_share(labels, share):
    held = held_out(names(labels), np.array(labels, dtype=np.int64), share)
    for label in set(labels):
        mine = np.array(labels) == label
        size, count = mine.sum(), held[mine].sum()
        if label < 0:
            assert count == 0
        else:
            assert count == min(math.ceil(Fraction(str(share)) * int(size)), size - 1)
            assert count < size
            assert count >= 1 or share == 0 or size == 1


@given(LABELS, SHARES, SHARES)
def test_a_larger_share_contains_a_smaller(labels, one, other):
    ids, labels = names(labels), np.array(labels, dtype=np.int64)
    small, large = held_out(ids, labels, min(one, other)), held_out(ids, labels, max(one, other))
    assert not (small & ~large).any()


@given(LABELS, SHARES, st.randoms(use_true_random=False))
def test_neither_order_nor_neighbours_nor_suffix_matter(labels, share, random):
    ids = names(labels)
    held = dict(zip(ids, held_out(ids, np.array(labels, dtype=np.int64), share), strict=True))
    pairs = list(zip(ids, labels, strict=True))
    random.shuffle(pairs)
    shuffled = held_out([i for i, _ in pairs], np.array([label for _, label in pairs], dtype=np.int64), share)
    assert {i: h for (i, _), h in zip(pairs, shuffled, strict=True)} == held

    alone = [(i, label) for i, label in zip(ids, labels, strict=True) if label == 0]
    of_one_class = held_out([i.replace(".jpg", ".png") for i, _ in alone], np.zeros(len(alone), dtype=np.int64), share)
    assert of_one_class.tolist() == [held[i] for i, _ in alone]


def test_shares_are_decimal_numbers():
    """0.07 * 100 is 7.000000000000001 in floating point; the share is 7 of 100."""
    labels = np.zeros(100, dtype=np.int64)
    for percent in range(100):
        assert held_out(names(labels), labels, percent / 100).sum() == percent


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(BenchError, match="held-out share"):
        held_out(["a"], np.array([0]), share)
