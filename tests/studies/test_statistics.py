"""Statistics compared with scipy and closed forms, on data with known results."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from transfer_jax.studies.statistics import (
    holm,
    least_wilcoxon,
    mcnemar,
    mean_interval,
    median_cost,
    paired_t_test,
    pairs_needed,
    trend,
    wilcoxon,
)


@pytest.mark.parametrize("values", [[0.7, 0.75, 0.8], [0.81, 0.83, 0.79, 0.84, 0.8]])
def test_few_values_have_an_interval_by_students_t(values):
    found = mean_interval(values)
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.method == "t"
    assert (found.mean, found.low, found.high) == pytest.approx(
        (np.mean(values), np.mean(values) - half, np.mean(values) + half)
    )


def test_many_values_have_a_bootstrap_interval():
    values = np.random.default_rng(0).gamma(2.0, size=20)
    found = mean_interval(values)
    assert found.method == "BCa"
    expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found == mean_interval(values)


def test_a_single_value_has_no_interval():
    assert (mean_interval([0.5]).low, mean_interval([0.5]).method) == (None, "none")
    assert mean_interval([0.5, 0.5]).high == 0.5
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


@pytest.mark.parametrize(("draw", "least"), [(stats.norm(0, 1), 0.93), (stats.expon(-1), 0.88)])
def test_intervals_have_their_coverage(draw, least):
    """The mean of 0 is in nearly 95 % of the intervals."""
    rng = np.random.default_rng(0)
    found = [mean_interval(draw.rvs(5, random_state=rng)) for _ in range(1000)]
    covered = np.mean([(each.low or 0) <= 0 <= (each.high or 0) for each in found])
    assert least < covered < 0.97


def test_without_overlap_the_test_is_students():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.8, 0.02, 7), rng.normal(0.79, 0.02, 7)
    found, expected = paired_t_test(a - b, 0.0), stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))


def test_overlap_widens_by_the_factor_of_nadeau_and_bengio():
    d = np.array([0.02, 0.03, 0.01, 0.025, 0.015])
    plain, corrected = paired_t_test(d, 0.0), paired_t_test(d, 1 / 3)
    factor = math.sqrt((1 / 5 + 1 / 3) / (1 / 5))
    widths = [(each.high or 0) - (each.low or 0) for each in (corrected, plain)]
    assert widths[0] == pytest.approx(factor * widths[1])
    t = 0.02 / math.sqrt((1 / 5 + 1 / 3) * d.var(ddof=1))
    assert corrected.p == pytest.approx(2 * stats.t.sf(t, 4))


def test_pairs_that_are_too_few_or_alike():
    assert (paired_t_test([0.1], 0.3).p, paired_t_test([0.1], 0.3).low) == (1.0, None)
    assert paired_t_test([0.0, 0.0], 0.3).p == 1.0
    assert paired_t_test([0.1, 0.1], 0.3).p == 0.0


def all_signs(d: np.ndarray) -> float:
    """Returns the two-sided p-value over all signs of the ranks."""
    ranks = stats.rankdata(np.abs(d))
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((-1, 1), repeat=len(d))]
    return float(np.mean(np.array(sums) >= abs(np.dot(np.sign(d), ranks)) - 1e-9))


@pytest.mark.parametrize(
    "differences",
    [
        [1, 2, 3, 4, 5],
        [1, -2, 3, 4, 5, 6],
        [0.5, 0.5, -0.5, 1, 1, 2],
        [1, 1, 1, 1, 1],
        [-3, 1, 4, -1, 5, 9, 2, 6],
    ],
)
def test_wilcoxon_is_exact_with_ties_too(differences):
    assert wilcoxon(differences) == pytest.approx(all_signs(np.array(differences, float)))


def test_wilcoxon_of_five_pairs_cannot_be_significant():
    assert wilcoxon([1, 2, 3, 4, 5]) == least_wilcoxon(5) == 0.0625
    assert wilcoxon([0, 0]) == 1.0
    assert wilcoxon(np.full(20, 0.1)) < 0.001


@pytest.mark.parametrize(("tests", "families"), [(1, 1), (18, 1), (20, 2), (3, 2)])
def test_pairs_needed_is_the_least_number_that_can_be_significant(tests, families):
    needed = pairs_needed(tests, families=families)
    assert least_wilcoxon(needed) * tests * families <= 0.05
    assert least_wilcoxon(needed - 1) * tests * families > 0.05


def test_mcnemar_counts_an_image_once():
    net = np.array([3, 1, 2, 1, 1, 1, -1, 0, 0, 1])
    assert mcnemar(net) == pytest.approx(stats.binomtest(7, 8).pvalue)
    assert mcnemar(np.sign(net)) == mcnemar(net)
    assert mcnemar(np.zeros(5)) == 1.0


def test_holm_is_that_of_the_paper():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.04], families=2) == pytest.approx([0.04, 0.08])
    assert holm([0.9, 0.9]).tolist() == [1, 1]
    assert holm([]).shape == (0,)


def test_a_trend_is_pages_in_both_directions():
    rng = np.random.default_rng(2)
    values = np.arange(6)[:, None] * 0.01 + rng.normal(0, 0.01, (6, 5))
    found, turned = trend(values), trend(values[::-1])
    expected = stats.page_trend_test(values.T).pvalue
    assert (found.direction, turned.direction) == ("rises", "falls")
    assert found.p == pytest.approx(2 * expected)
    assert turned.p == pytest.approx(found.p)
    assert trend(-values).direction == "falls"


def test_a_trend_must_hold_over_images_too():
    values = np.arange(5)[:, None] + np.zeros((5, 4))
    same = np.ones((5, 100))
    assert trend(values).p < 0.001
    assert trend(values, same).p == 1.0
    rng = np.random.default_rng(0)
    rising = (rng.random(100) < np.linspace(0.5, 0.9, 5)[:, None]).astype(float)
    assert trend(values, rising).p < 0.001


def test_a_trend_leaves_out_seeds_that_lack_a_level():
    values = np.arange(4)[:, None] + np.random.default_rng(0).random((4, 6)) / 10
    gap = values.copy()
    gap[1, 2] = np.nan
    assert trend(gap).seeds == 5
    assert trend(gap).p_seeds == trend(np.delete(values, 2, axis=1)).p_seeds
    assert trend(values[:2]).p == trend(values[:, :1]).p == 1.0


def test_the_median_cost_counts_seeds_that_never_reach_the_target():
    assert median_cost([3, 1, 2]) == 2
    assert median_cost([3, 1, None]) == 3
    assert median_cost([3, None, None]) is None
    assert median_cost([1, None]) is None
    assert median_cost([]) is None
