"""The statistics of paired results: intervals, tests, and corrections for multiple tests.

Pure functions of arrays. Results are paired by seed: all arms have the same split, order of images and new
head for a seed. Splits overlap, so results of different seeds are not independent. `overlap` is the number of
validation images divided by the number of training images; it widens the intervals of differences (Nadeau and
Bengio 2003).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05
"""The significance level: the allowed rate of errors over all claims of a study."""
_BCA_LEAST = 10
"""The smallest number of values for which bootstrap intervals have about their nominal coverage."""
_RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval.

    Attributes:
        mean: The mean.
        low: The lower end; None if there is only one value.
        high: The upper end; None if there is only one value.
        method: The method of the interval: `BCa`, `t`, or `none`.
    """

    mean: float
    low: float | None
    high: float | None
    method: str


def mean_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0) -> Interval:
    """Returns the mean of values with a 95 % interval.

    Ten or more values use the bias-corrected and accelerated bootstrap (Efron 1987) with 9,999 resamples.
    Fewer values use Student's t, because resamples of so few values vary too little.

    Args:
        values: The values, `(n,)`.
        seed: The seed of the resamples.

    Raises:
        ValueError: If there are no values.
    """
    x = np.asarray(values, float)
    if len(x) == 0:
        raise ValueError("mean_interval needs at least one value, got no values")
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, None, None, "none")
    if np.ptp(x) == 0:
        return Interval(mean, mean, mean, "t")
    if len(x) < _BCA_LEAST:
        low, high = stats.t.interval(1 - LEVEL, len(x) - 1, mean, stats.sem(x))
        return Interval(mean, float(low), float(high), "t")
    rng = np.random.default_rng(seed)
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=1 - LEVEL, n_resamples=_RESAMPLES, method="BCa", rng=rng
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), "BCa")


@dataclasses.dataclass(frozen=True)
class PairedDifferences:
    """The differences of pairs, with their mean and its test.

    Attributes:
        differences: The difference of each pair, `(n,)`.
        difference: The mean difference.
        low: The lower end of its 95 % interval; None with fewer than two pairs.
        high: The upper end; None with fewer than two pairs.
        p: The two-sided p-value of the corrected resampled t-test; 1 with fewer than two pairs.
    """

    differences: np.ndarray
    difference: float
    low: float | None
    high: float | None
    p: float

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.differences)


def paired_t_test(differences: Sequence[float] | np.ndarray, overlap: float) -> PairedDifferences:
    """Tests whether the mean difference of pairs differs from zero, by the corrected resampled t-test.

    The variance of the mean is `(1 / n + overlap) s^2`, because the pairs share training images.

    Source: Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52.

    Args:
        differences: The difference of each pair, `(n,)`, one for each seed.
        overlap: The number of validation images divided by the number of training images. 0 is for
            independent pairs and gives Student's t-test.
    """
    d = np.asarray(differences, float)
    n, mean = len(d), float(d.mean()) if len(d) else math.nan
    if n < 2:
        return PairedDifferences(d, mean, None, None, 1.0)
    error = math.sqrt((1 / n + overlap) * float(d.var(ddof=1)))
    if error == 0:
        return PairedDifferences(d, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    width = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return PairedDifferences(d, mean, mean - width, mean + width, p)


def wilcoxon(differences: Sequence[float] | np.ndarray) -> float:
    """Returns the two-sided p-value of the signed-rank test; differences of zero are dropped.

    The test is exact for up to 50 pairs, or up to 13 pairs with ties, and uses the normal approximation for
    more.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods".
    """
    d = np.round(np.asarray(differences, float), 12)  # Rounding keeps the ties of accuracies over few images.
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    method: Any = "approx"
    if len(np.unique(np.abs(d))) == len(d):
        method = "exact" if len(d) <= 50 else method
    elif len(d) <= 13:
        method = stats.PermutationMethod()  # Enumerates all 2^n signs.
    found: Any = stats.wilcoxon(d, method=method)
    return float(found.pvalue)


def mcnemar(net: np.ndarray) -> float:
    """Returns the exact two-sided p-value of McNemar's test, with images as the units.

    An image in the validation sets of several seeds counts once, for the arm that is correct more often.

    Source: McNemar 1947; exact as a sign test.

    Args:
        net: For each image, the number of seeds in which the first arm is correct minus that of the second
            arm, `(images,)`.
    """
    better, worse = int((net > 0).sum()), int((net < 0).sum())
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse).pvalue)


def holm(p: Sequence[float] | np.ndarray, *, families: int = 1) -> np.ndarray:
    """Returns the p-values of a family of tests, adjusted for their number.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p: The p-values, `(tests,)`.
        families: The number of families that divide the significance level equally.
    """
    values = np.asarray(p, float)
    order = np.argsort(values)
    scaled = values[order] * (len(values) - np.arange(len(values))) * families
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


@dataclasses.dataclass(frozen=True)
class Trend:
    """A trend over ordered levels.

    Attributes:
        direction: `rises` or `falls`.
        p: The larger of `p_seeds` and `p_images`, two-sided; 1 with fewer than three levels or two seeds.
        seeds: The number of seeds that have all levels.
        levels: The number of levels.
        p_seeds: The p-value of Page's test over seeds.
        p_images: The p-value of the test over images; None without predictions.
    """

    direction: str
    p: float
    seeds: int
    levels: int
    p_seeds: float
    p_images: float | None


def trend(values: np.ndarray, by_image: np.ndarray | None = None) -> Trend:
    """Tests whether values rise or fall along the levels, over seeds and, where known, over images.

    Page's test ranks the levels within each seed. It accounts for the randomness of training but not for that
    of the images, which are the same in many seeds. So the slopes of images are tested too, and the larger
    p-value counts.

    Source: Page 1963, "Ordered hypotheses for multiple treatments".

    Args:
        values: The values, `(levels, seeds)`; a seed that lacks a level (nan) is left out.
        by_image: The values of each level on each image, summed over seeds, `(levels, images)`.
    """
    whole = values[:, ~np.isnan(values).any(0)]
    levels, seeds = whole.shape
    if levels < 3 or seeds < 2:
        return Trend("rises", 1.0, seeds, levels, 1.0, None)
    centred = np.arange(levels) - (levels - 1) / 2
    rising = float(centred @ stats.rankdata(whole, axis=0).mean(1)) >= 0
    ordered = whole if rising else whole[::-1]
    p_seeds = min(2 * float(stats.page_trend_test(ordered.T).pvalue), 1.0)
    p_images = None if by_image is None else mean_p_value(centred @ by_image)
    p = p_seeds if p_images is None else max(p_seeds, p_images)
    return Trend("rises" if rising else "falls", p, seeds, levels, p_seeds, p_images)


def mean_p_value(values: np.ndarray) -> float:
    """Returns the two-sided p-value of Student's t-test of the mean of values against zero.

    Args:
        values: The values of independent images, `(images,)`; 1 is returned if they are all equal.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return 1.0
    found: Any = stats.ttest_1samp(values, 0.0)
    return float(found.pvalue)


def least_wilcoxon(pairs: int) -> float:
    """Returns the smallest two-sided p-value of the exact signed-rank test for a number of pairs."""
    return min(2.0 ** (1 - pairs), 1.0)


def pairs_needed(tests: int, *, families: int = 1) -> int:
    """Returns the smallest number of pairs for which an exact signed-rank test can be significant.

    It is one of `tests` tests that Holm corrects for, and `families` families divide the significance level.
    """
    return math.ceil(1 + math.log2(tests * families / LEVEL))


def median_cost(costs: Sequence[float | None]) -> float | None:
    """Returns the median of the costs to reach a target; None stands for a target that is never reached.

    A cost of None counts as larger than any other. The median is unknown (None) if half or more are None.
    """
    found = np.array([math.inf if cost is None else cost for cost in costs])
    middle = float(np.median(found)) if len(found) else math.inf
    return middle if math.isfinite(middle) else None
