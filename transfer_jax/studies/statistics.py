"""The statistics of paired results: intervals, tests, and what corrects for many of them.

Pure functions of arrays. A seed is a pair: all arms had its split, its order and its new head. Splits
overlap, so that results of different seeds are not independent: `overlap` is the number of held-out images
over that of training images, and widens what is said of differences (Nadeau and Bengio 2003).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Of errors, in the whole of what is claimed."""
_BCA_LEAST = 10
"""Values from which on bootstrap intervals are near to what they promise."""
_RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval.

    Attributes:
        mean: The mean.
        low: Lower end; None where there is one value only.
        high: Upper end.
        method: `BCa`, `t`, or `none`.
    """

    mean: float
    low: float | None
    high: float | None
    method: str


def mean_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0) -> Interval:
    """The mean of values with an interval.

    With ten or more by the bootstrap: bias-corrected and accelerated, Efron 1987, 9,999 resamples. With fewer
    by Student's t, for resamples of so few values are too much alike.

    Args:
        values: `(n,)`.
        seed: Of the resamples.
    """
    x = np.asarray(values, float)
    if len(x) == 0:
        raise ValueError("the mean of no values")
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
class Paired:
    """Differences of pairs.

    Attributes:
        differences: One a pair.
        difference: Their mean.
        low: Lower end of its 95 % interval; None with fewer than two pairs.
        high: Upper end.
        p: Of the corrected resampled t-test, two-sided; 1 with fewer than two pairs.
    """

    differences: np.ndarray
    difference: float
    low: float | None
    high: float | None
    p: float

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)


def paired(differences: Sequence[float] | np.ndarray, overlap: float) -> Paired:
    """Whether differences of pairs are other than zero on average.

    The t-test has a variance of `(1 / n + overlap) s^2`, since the pairs share training images.

    Source: Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52.

    Args:
        differences: `(n,)`, one a seed.
        overlap: Held-out images over training images; 0 for independent pairs, which is Student's test.
    """
    d = np.asarray(differences, float)
    n, mean = len(d), float(d.mean()) if len(d) else math.nan
    if n < 2:
        return Paired(d, mean, None, None, 1.0)
    error = math.sqrt((1 / n + overlap) * float(d.var(ddof=1)))
    if error == 0:
        return Paired(d, mean, mean, mean, 1.0 if mean == 0 else 0.0)
    width = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Paired(d, mean, mean - width, mean + width, p)


def wilcoxon(differences: Sequence[float] | np.ndarray) -> float:
    """The p-value of the signed-rank test, two-sided; zeros are dropped.

    Exact up to 50 pairs, or 13 where some are alike; by the normal approximation for more.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods".
    """
    d = np.round(np.asarray(differences, float), 12)  # Accuracies are shares of few images: ties are meant.
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    method: Any = "approx"
    if len(np.unique(np.abs(d))) == len(d):
        method = "exact" if len(d) <= 50 else method
    elif len(d) <= 13:
        method = stats.PermutationMethod()  # Of all 2^n signs.
    found: Any = stats.wilcoxon(d, method=method)
    return float(found.pvalue)


def mcnemar(net: np.ndarray) -> float:
    """The exact p-value of McNemar's test, two-sided, with images as the units.

    An image that several seeds hold out counts once: for the arm that was right more often on it.

    Source: McNemar 1947; exact as a sign test.

    Args:
        net: `(images,)`, how often one arm was right on each less how often the other was.
    """
    better, worse = int((net > 0).sum()), int((net < 0).sum())
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse).pvalue)


def holm(p: Sequence[float] | np.ndarray, *, families: int = 1) -> np.ndarray:
    """Adjusted p-values of a family of tests.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p: `(tests,)`.
        families: How many families share the level; each has an equal part.
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
        direction: `rises` or `falls`: towards which it is.
        p: Two-sided; 1 where there are too few levels or seeds.
        seeds: Seeds with all levels.
        levels: Levels.
        p_seeds: Of Page's test over seeds.
        p_images: Of the test over images; None without predictions.
    """

    direction: str
    p: float
    seeds: int
    levels: int
    p_seeds: float
    p_images: float | None


def trend(values: np.ndarray, right: np.ndarray | None = None) -> Trend:
    """Whether values rise or fall along levels, in every seed alike and, where known, in images.

    Page's test ranks the levels within each seed. It knows of the randomness of training, not of that of the
    images, which are the same ones in many seeds; so the slopes of images are tested, too, and the larger
    p-value counts.

    Source: Page 1963, "Ordered hypotheses for multiple treatments".

    Args:
        values: `(levels, seeds)`; a seed that lacks a level (nan) is left out.
        right: `(levels, images)`, how often each level was right on each image.
    """
    whole = values[:, ~np.isnan(values).any(0)]
    levels, seeds = whole.shape
    if levels < 3 or seeds < 2:
        return Trend("rises", 1.0, seeds, levels, 1.0, None)
    centred = np.arange(levels) - (levels - 1) / 2
    rising = float(centred @ stats.rankdata(whole, axis=0).mean(1)) >= 0
    ordered = whole if rising else whole[::-1]
    p_seeds = min(2 * float(stats.page_trend_test(ordered.T).pvalue), 1.0)
    p_images = None if right is None else _slopes(centred @ right)
    p = p_seeds if p_images is None else max(p_seeds, p_images)
    return Trend("rises" if rising else "falls", p, seeds, levels, p_seeds, p_images)


def _slopes(slopes: np.ndarray) -> float:
    """The p-value of a t-test that the slopes of images are zero on average, two-sided."""
    if len(slopes) < 2 or np.ptp(slopes) == 0:
        return 1.0
    found: Any = stats.ttest_1samp(slopes, 0.0)
    return float(found.pvalue)


def least_wilcoxon(pairs: int) -> float:
    """The smallest p-value that so many pairs can have in the exact signed-rank test, two-sided."""
    return min(2.0 ** (1 - pairs), 1.0)


def pairs_needed(tests: int, *, families: int = 1) -> int:
    """Pairs from which on an exact signed-rank test can be significant, of so many that Holm corrects for."""
    return math.ceil(1 + math.log2(tests * families / LEVEL))


def median_cost(costs: Sequence[float | None]) -> float | None:
    """The median of costs to reach a target, of which those that never did (None) count as larger than any.

    None where half or more never did: the median is not known then.
    """
    found = np.array([math.inf if cost is None else cost for cost in costs])
    middle = float(np.median(found)) if len(found) else math.inf
    return middle if math.isfinite(middle) else None
