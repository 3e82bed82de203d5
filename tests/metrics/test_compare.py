"""The test between rows: by hand, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from bench.metrics.compare import Measurement, holm, not_below_any, p_below, resampled_counts


def _row(hits, resamples=2000):
    """A row of several seeds from hits (S, N)."""
    hits = np.atleast_2d(np.asarray(hits, dtype=np.float64))
    weights = np.concatenate(resampled_counts(hits.shape[1], resamples))
    return Measurement(tuple(hits.mean(1)), weights @ hits.mean(0) / hits.shape[1], hits.shape[1])


def test_resamples_draw_every_example_with_equal_chance_and_repeat():
    counts = np.concatenate(resampled_counts(50, 4000))
    assert counts.shape == (4000, 50)
    assert (counts.sum(1) == 50).all()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.05)
    assert all((a == b).all() for a, b in zip(resampled_counts(50), resampled_counts(50), strict=True))


def test_one_seed_is_the_paired_test_over_examples():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.5, rng.random(400) < 0.6
    expected = stats.ttest_rel(a.astype(float), b.astype(float), alternative="less").pvalue
    assert p_below(_row(a, 20_000), _row(b, 20_000)) == pytest.approx(expected, rel=0.1)


def test_seeds_alone_are_welch_s_test():
    a, b = (10.0, 11.0, 12.5), (13.0, 13.5, 16.0)
    still = np.zeros(100)
    found = p_below(Measurement(a, still, 1000), Measurement(b, still, 1000))
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False, alternative="less").pvalue, rel=1e-6)


def test_both_sources_of_chance_add_up_by_hand():
    # s²/S = 1/2 and 2/2; over the examples 0.5: error² = 2, difference -2; df = 4 / (.25/1 + 1/1 + .25/99)
    a = Measurement((1 - 0.5**0.5, 1 + 0.5**0.5), np.array([0.0, 1.0]), 100)
    b = Measurement((2.0, 4.0), np.array([0.0, 0.0]), 100)
    assert p_below(a, b) == pytest.approx(float(stats.t.cdf(-2 / 2**0.5, 4 / (0.25 + 1 + 0.25 / 99))))


def test_rows_that_never_differ():
    same = Measurement((5.0,), np.full(10, 5.0), 10)
    other = Measurement((6.0,), np.full(10, 6.0), 10)
    assert p_below(same, same) == 1
    assert p_below(same, other) == 0
    assert p_below(other, same) == 1


def test_rows_on_other_examples_are_refused():
    with pytest.raises(ValueError, match="share"):
        p_below(Measurement((1.0,), np.zeros(3), 10), Measurement((1.0,), np.zeros(3), 11))


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, then never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_clearly_worse_rows_lose_and_equal_ones_stay():
    rng = np.random.default_rng(1)
    chances = (0.2, 0.6, 0.6)
    rows = [_row(rng.random((3, 1000)) < chance) for chance in chances]
    assert not_below_any(rows) == [False, True, True]
    assert not_below_any(rows[:1]) == [True]
    assert not_below_any([]) == []


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_truly_best_row_loses_its_bold_in_at_most_one_of_twenty(seeds):
    """Six rows of one true accuracy that share the difficulty of the examples; seeds vary too."""
    rng = np.random.default_rng(seeds)
    trials, lost, examples = 400, 0, 200
    weights = np.concatenate(resampled_counts(examples, 300))
    for _ in range(trials):
        difficulty = rng.normal(size=examples)
        rows = []
        for _ in range(6):
            # a seed's skill varies only where there are seeds to see it by
            skill = rng.normal(0, 0.2 if seeds > 1 else 0.0, size=(seeds, 1))
            hits = (difficulty + skill + rng.normal(size=(seeds, examples)) > 0).astype(float)
            rows.append(Measurement(tuple(hits.mean(1)), weights @ hits.mean(0) / examples, examples))
        lost += not all(not_below_any(rows))
    assert lost / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5
