"""Sets of permutations against what the published files measure."""

import itertools
import time

import numpy as np
import pytest

from bench.methods._permutations import APART, far_apart


def _distances(chosen):
    return (chosen[:, None] != chosen[None]).sum(-1)[np.triu_indices(len(chosen), 1)]


@pytest.mark.parametrize(("count", "least", "mean"), [(100, 2, 8.08), (701, 3, 8.00), (1000, 2, 8.005)])
def test_distances_agree_with_the_published_sets(count, least, mean):
    found = _distances(far_apart(count))
    assert found.min() >= max(least, APART)
    assert abs(found.mean() - mean) < 0.02


@pytest.mark.parametrize("count", [2, 24, 701])
def test_they_are_distinct_permutations_without_the_identity(count):
    chosen = far_apart(count)
    assert chosen.shape == (count, 9)
    assert (np.sort(chosen, 1) == np.arange(9)).all()
    assert len(np.unique(chosen, axis=0)) == count
    assert not (chosen == np.arange(9)).all(1).any()


def test_nine_can_differ_everywhere_and_greed_finds_them():
    assert (_distances(far_apart(9)) == 9).all()


def test_each_choice_is_the_farthest_from_those_before():
    """Against all 9! permutations, for a few steps: the plain definition, in other words."""
    pool = np.array(list(itertools.permutations(range(9))), dtype=np.int8)[1:]
    chosen = far_apart(14).astype(np.int8)
    for k in (1, 9, 10, 13):
        apart = (pool[:, None] != chosen[None, :k]).sum(-1)
        allowed = apart.min(1) >= APART
        ours = (chosen[k] != chosen[:k]).sum()
        assert ours == apart.sum(1)[allowed].max()


def test_a_smaller_set_begins_a_larger_one_and_the_same_is_found_again():
    assert (far_apart(24) == far_apart(100)[:24]).all()
    assert (far_apart.__wrapped__(30) == far_apart(30)).all()


def test_a_thousand_take_seconds():
    began = time.process_time()
    far_apart.__wrapped__(1000)
    assert time.process_time() - began < 10
