"""Intervals, by hand and by simulation."""

import numpy as np
import pytest
from scipy import stats

from bench.metrics.average_precision import mean_ap, rank_images
from bench.metrics.compare import resampled_counts
from bench.metrics.intervals import bootstrap, bootstrap_mean, column, t_interval


def test_t_by_hand():
    # mean 2, sd 1, n 3: 2 +- 4.302653 / sqrt(3)
    low, high = t_interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert t_interval([5.0, 5.0, 5.0]) == (5.0, 5.0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_t_is_scipys(level):
    values = np.random.default_rng(0).normal(30, 2, size=5)
    expected = stats.t.interval(level, 4, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values, level) == pytest.approx(expected)


def test_bootstrap_of_hits_is_the_binomial():
    scores = np.arange(1000) < 300
    low, high = bootstrap_mean(scores, resamples=20_000)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    assert (low, high) == pytest.approx(expected, abs=0.0015)


def test_few_and_many_values_agree():
    """The shortcut by counts has the distribution of plain resampling."""
    rng = np.random.default_rng(1)
    few = rng.integers(0, 200, size=2000) / 200
    many = few + rng.uniform(0, 1e-9, size=2000)
    assert bootstrap_mean(few, 5000) == pytest.approx(bootstrap_mean(many, 5000), abs=0.001)


def test_bootstrap_keeps_unit_and_order():
    scores = np.random.default_rng(2).random(500) < 0.4
    low, high = bootstrap_mean(scores)
    assert low < scores.mean() < high
    assert bootstrap_mean(scores * 100.0) == pytest.approx((100 * low, 100 * high))
    narrow = bootstrap_mean(scores, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_is_deterministic():
    scores = np.random.default_rng(3).normal(size=400)
    assert bootstrap_mean(scores, seed=5) == bootstrap_mean(scores, seed=5)
    assert bootstrap_mean(scores, seed=5) != bootstrap_mean(scores, seed=6)
    assert bootstrap_mean(scores[::-1] > 0) == bootstrap_mean(scores > 0)


def test_extremes():
    assert bootstrap_mean([1, 1, 1]) == (1.0, 1.0)
    assert bootstrap_mean([0]) == (0.0, 0.0)


def test_blocks_do_not_matter(monkeypatch):
    scores = np.random.default_rng(4).normal(size=300)
    whole = bootstrap_mean(scores)
    monkeypatch.setattr("bench.metrics.intervals._BLOCK", 1000)
    assert bootstrap_mean(scores) == whole


@pytest.mark.parametrize("interval", [bootstrap_mean, t_interval])
def test_bad_input(interval):
    for bad in ([], [np.nan, 1.0], [[1.0, 2.0]], [np.inf, 0.0]):
        with pytest.raises(ValueError):  # noqa: PT011
            interval(bad)
    with pytest.raises(ValueError, match="level"):
        interval([1.0, 2.0], level=1.0)
    with pytest.raises(ValueError, match="two values"):
        t_interval([1.0])


def test_coverage_by_simulation():
    """Of 95 % intervals about 95 % hold the truth: 400 experiments, so +- 3.3 points at three sigma."""
    rng = np.random.default_rng(7)
    hits = [bootstrap_mean(rng.random(800) < 0.35, 1000, seed=i) for i in range(400)]
    assert np.mean([low <= 0.35 <= high for low, high in hits]) == pytest.approx(0.95, abs=0.034)
    seeds = [t_interval(rng.normal(35, 1.5, size=3)) for _ in range(2000)]
    assert np.mean([low <= 35 <= high for low, high in seeds]) == pytest.approx(0.95, abs=0.015)


def small_set(seed, images=135, classes=20):
    """Average precision of scores that say nothing on a small set of many classes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, classes)) < 0.2).astype(np.int8)
    return mean_ap([rank_images(rng.normal(size=truth.shape), truth)], "11-point")


def test_resamples_of_average_precision_lie_above_it_and_the_interval_does_not():
    statistic = small_set(0)
    value = float(statistic(np.ones((1, 135), np.float32))[0])
    resampled = np.concatenate([statistic(counts) for counts in resampled_counts(135)])
    plain = np.quantile(resampled, [0.025, 0.975])
    assert (resampled < value).mean() < 0.1, "percentiles alone all but exclude the value"
    low, high = bootstrap(statistic, 135)
    assert low < value < high
    assert (low, high) == pytest.approx(plain - resampled.mean() + value)
    assert high - low == pytest.approx(plain[1] - plain[0])


@pytest.mark.parametrize("seed", range(4))
def test_a_column_contains_its_value_and_stays_within_0_and_100(seed):
    made = column(small_set(seed, images=30), 30, 0.06)
    assert 0 <= made["low"] <= made["value"] <= made["high"] <= 100
    perfect = mean_ap([rank_images(np.eye(8), np.eye(8, dtype=np.int8))], "area")
    made = column(perfect, 8, 0.1)
    assert 0 <= made["low"] <= made["value"] == made["high"] == 100


def test_a_mean_is_hardly_moved_by_recentring():
    hits = np.random.default_rng(3).random(400) < 0.3
    low, high = bootstrap(lambda counts: counts @ hits.astype(np.float64) / 400, 400)
    assert (low, high) == pytest.approx(bootstrap_mean(hits), abs=0.005)


def test_recentred_intervals_hold_the_truth():
    """The average precision of a whole population, from samples of 60 of its images: about 95 of 100 intervals."""
    rng = np.random.default_rng(11)
    truth = (rng.random((20_000, 1)) < 0.3).astype(np.int8)
    scores = rng.normal(size=truth.shape) + truth
    whole = float(mean_ap([rank_images(scores, truth)], "area")(np.ones((1, 20_000), np.float32))[0])
    held = 0
    for _ in range(200):
        some = rng.integers(20_000, size=60)
        low, high = bootstrap(mean_ap([rank_images(scores[some], truth[some])], "area"), 60, resamples=300)
        held += low <= whole <= high
    assert held / 200 > 0.88
