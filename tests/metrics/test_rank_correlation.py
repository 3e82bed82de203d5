"""Rank correlations: against scipy's, and their p-values by counting."""

import itertools

import numpy as np
import pytest
from scipy import stats

from bench.metrics.rank_correlation import agreement


def test_the_same_order_of_five_is_one_of_120():
    found = agreement([1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert (found.tau, found.rho, found.n) == (pytest.approx(1), pytest.approx(1), 5)
    assert found.tau_p == found.rho_p == pytest.approx(1 / 120)
    assert found.exact


def test_the_reverse_order_is_the_worst_of_all():
    found = agreement([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert found.tau == found.rho == pytest.approx(-1)
    assert found.tau_p == found.rho_p == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_statistics_are_scipy_s_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 8), rng.integers(0, 5, 8)
    found = agreement(a, b)
    assert found.tau == pytest.approx(stats.kendalltau(a, b).statistic)
    assert found.rho == pytest.approx(stats.spearmanr(a, b).statistic)


def test_the_p_value_counts_orders():
    a, b = np.array([1.0, 2, 3, 4, 5, 5]), np.array([2.0, 1, 4, 3, 6, 6])
    real = stats.kendalltau(a, b).statistic
    orders = [stats.kendalltau(a, b[list(o)]).statistic for o in itertools.permutations(range(6))]
    assert agreement(a, b).tau_p == pytest.approx(np.mean(np.array(orders) >= real - 1e-9))


def test_many_pairs_are_sampled():
    rng = np.random.default_rng(0)
    a = rng.normal(size=20)
    b = a + 3 * rng.normal(size=20)
    found = agreement(a, b)
    assert not found.exact
    assert found.tau_p == pytest.approx(stats.kendalltau(a, b, alternative="greater").pvalue, abs=0.01)
    assert found.rho_p == pytest.approx(stats.spearmanr(a, b, alternative="greater").pvalue, abs=0.01)


def test_nothing_is_said_of_few_or_of_ties():
    assert agreement([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert agreement([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None


def test_bad_rows_are_refused():
    with pytest.raises(ValueError, match="finite"):
        agreement([1, 2, 3, 4, float("nan")], [1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="one length"):
        agreement([1, 2, 3, 4, 5], [1, 2, 3, 4])
