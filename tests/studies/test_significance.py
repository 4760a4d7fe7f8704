import numpy as np
import pytest
from false_positives import NULLS, alike_models

from transfer_jax.studies.significance import ABSENT, NO_DIFFERENCE, Scores, assess_significance


def scores_of(accuracy, **others) -> Scores:
    accuracy = np.asarray(accuracy, float)
    levels = tuple(range(len(accuracy)))
    return Scores(levels, tuple(f"level {level}" for level in levels), accuracy, **others)


def better(rng: np.random.Generator, gain: float, levels: int = 4, seeds: int = 5) -> Scores:
    """Returns models of 600 images; those of higher levels are correct more often."""
    hard = rng.normal(1.0, 1.0, 600)
    logits = hard + gain * np.arange(levels)[:, None, None] + 0.3 * rng.normal(size=(levels, seeds, 600))
    held = np.stack([rng.permutation(600) < 150 for _ in range(seeds)])
    right = np.where(held, logits > 0, ABSENT)
    return scores_of(np.nanmean(right, -1), by_image=right)


@pytest.mark.parametrize("null", NULLS)
def test_equal_arms_have_no_significant_differences(null):
    """`benchmarks/false_positives.py` measures the rate; here at most 5 of 100 studies may be wrong."""
    claims = []
    for number in range(100):
        scores = NULLS[null](np.random.default_rng([7, number]), 4, 5, 300)
        claims.append(assess_significance([scores], 0, ordered=True).claims > 0)
    assert sum(claims) <= 5


def test_mcnemar_alone_mistakes_the_randomness_of_training_for_a_difference():
    """So a difference must hold over seeds as well."""
    found = 0
    for number in range(40):
        rng = np.random.default_rng([8, number])
        scores = alike_models(rng, 4, 5, images=1000, randomness=0.5, habits=0.0)
        planned = [
            c for c in assess_significance([scores], 0, ordered=False).comparisons if c.family == "baseline"
        ]
        found += min(each.p_images or 0.0 for each in planned) < 0.05 / 3
    assert found > 8


def test_a_real_difference_is_claimed():
    significance = assess_significance([better(np.random.default_rng(0), 0.8)], 0, ordered=True)
    planned = {each.a: each.verdict for each in significance.comparisons if each.family == "baseline"}
    assert planned == {1: "higher", 2: "higher", 3: "higher"}
    assert [each.verdict for each in significance.trends] == ["rises"]
    with_best = {each.a: each for each in significance.comparisons if each.family == "best"}
    assert (with_best[0].b, with_best[0].verdict) == (3, "lower")
    assert with_best[0].paired.difference < 0
    ends = [with_best[0].paired.low, with_best[0].paired.difference, with_best[0].paired.high]
    assert ends == sorted(map(float, filter(None, ends)))


def test_the_larger_p_value_counts():
    scores = better(np.random.default_rng(1), 0.5)
    for each in assess_significance([scores], 0, ordered=True).comparisons:
        assert each.p_images is not None
        assert each.p == max(each.paired.p, each.p_images)


def test_families_divide_the_level_and_all_pairs_count():
    scores = better(np.random.default_rng(2), 0.3)
    significance = assess_significance([scores], 0, ordered=True)
    planned = [each for each in significance.comparisons if each.family == "baseline"]
    assert significance.planned == len(planned) + len(significance.trends) == 4
    p = [each.p for each in planned] + [each.trend.p for each in significance.trends]
    corrected = [each.p_holm for each in (*planned, *significance.trends)]
    assert min(corrected) == pytest.approx(min(2 * 4 * min(p), 1))
    best = [each for each in significance.comparisons if each.family == "best"]
    assert len(best) == 3
    assert min(each.p_holm for each in best) >= min(2 * 6 * min(each.p for each in best), 1) * (1 - 1e-9)


def test_seeds_that_lack_a_level_are_left_out_of_its_pairs():
    accuracy = np.array([[0.7, 0.71, 0.72, 0.7], [0.8, np.nan, 0.82, 0.81]])
    (baseline, best) = assess_significance([scores_of(accuracy)], 0, ordered=False).comparisons
    assert (baseline.paired.n, baseline.p_images) == (3, None)
    assert baseline.paired.difference == pytest.approx(np.mean([0.1, 0.1, 0.11]))
    assert (best.a, best.b) == (0, 1)


def test_notes_on_few_seeds():
    five = assess_significance([better(np.random.default_rng(0), 0.0, levels=3)], 0, ordered=True)
    assert "is at least 0.0625, whatever" in five.notes()[0]
    assert "For one of 3 planned tests to be significant, 8 seeds are needed" in five.notes()[0]
    (note, _) = assess_significance([scores_of([[0.5], [0.6]])], 0, ordered=True).notes()
    assert "One seed cannot show any difference" in note
    many = assess_significance([better(np.random.default_rng(0), 0.0, levels=3, seeds=8)], 0, ordered=True)
    assert many.notes() == []


def test_without_a_baseline_nothing_is_compared():
    assert assess_significance([scores_of([[0.5, 0.6], [0.6, 0.7]])], None, ordered=False).comparisons == ()


def test_equal_scores_are_no_difference():
    significance = assess_significance([scores_of(np.full((3, 5), 0.5))], 0, ordered=True)
    assert {each.verdict for each in significance.comparisons} == {NO_DIFFERENCE}
    assert significance.claims == 0
