"""The significance tests of a study, corrected for their number.

Two families of tests divide the error rate of 5 %. The planned tests compare each level with the baseline and
test the trends. The other family compares every level with every other, because the best level is only known
afterwards; the comparisons with the best level are reported. A difference of the score is significant only if
it holds over seeds (corrected resampled t-test) and over images (McNemar's test of images that are right or
wrong, Student's t-test of other values of images). The first test accounts for the randomness of training,
the second for the number of images. `benchmarks/false_positives.py` measures how often differences are
claimed between arms that are equal.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.studies.statistics import (
    LEVEL,
    PairedDifferences,
    Trend,
    holm,
    least_wilcoxon,
    mcnemar,
    mean_p_value,
    paired_t_test,
    pairs_needed,
    trend,
)
from transfer_jax.tasks import Metric, SingleLabel

NO_DIFFERENCE = "no difference shown"
NO_TREND = "no trend shown"
ABSENT = np.nan
"""The value of an image that is not in the validation set of a seed."""
_FAMILIES = 2


@dataclasses.dataclass(frozen=True)
class Scores:
    """The results of the compared levels, all other factors being equal.

    Attributes:
        levels: The levels.
        labels: The name of each level.
        values: The score on the validation images, `(levels, seeds)`; nan for a missing trial.
        gap: How much better the score is on the training images, `(levels, seeds)`; None if unknown.
        by_image: The value of each image, whose mean is the score (`Task.image_values`),
            `(levels, seeds, images)`; `ABSENT` if it is not in the validation set of the seed or the trial is
            missing; None if unknown.
        metric: The score.
        binary: Whether the values of images are 0 and 1, wrong and right.
        overlap: The number of validation images divided by the number of training images.
        group: The names and values of the other factors.
    """

    levels: tuple[Any, ...]
    labels: tuple[str, ...]
    values: np.ndarray
    gap: np.ndarray | None = None
    by_image: np.ndarray | None = None
    metric: Metric = SingleLabel.metrics[0]
    binary: bool = True
    overlap: float = 1 / 3
    group: tuple[tuple[str, Any], ...] = ()

    @functools.cached_property
    def complete(self) -> np.ndarray:
        """A mask of the seeds that have all levels, `(seeds,)`."""
        return np.asarray(~np.isnan(self.values).any(0))

    @functools.cached_property
    def means(self) -> np.ndarray:
        """The mean score of each level; over the seeds that have all levels, if there are any."""
        found = self.values[:, self.complete] if self.complete.any() else self.values
        return np.nanmean(found, axis=1)

    @property
    def best(self) -> int:
        """The index of the level with the best mean score."""
        return self.metric.best(self.means)

    def totals(self) -> np.ndarray | None:
        """Returns the values of each level on each image, summed over seeds, `(levels, images)`.

        Uses only seeds that have all levels. Returns None without predictions or without such a seed.
        """
        if self.by_image is None or not self.complete.any():
            return None
        values = self.by_image[:, self.complete]
        held = ~np.isnan(values).any(0)
        return np.where(held, values, 0).sum(1)[:, held.any(0)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of two levels.

    Attributes:
        scores: The results that both levels are part of.
        a: The index of the first level.
        b: The index of the level it is compared with.
        family: `baseline` or `best`.
        paired: The differences a - b over seeds.
        p_images: The p-value of the test over images; None without predictions.
        p_holm: The larger of both p-values, corrected by Holm.
    """

    scores: Scores
    a: int
    b: int
    family: str
    paired: PairedDifferences
    p_images: float | None
    p_holm: float = 1.0

    @property
    def test(self) -> str:
        """The tests whose larger p-value counts."""
        images = "McNemar" if self.scores.binary else "t"
        return "corrected resampled t over seeds" + (
            "" if self.p_images is None else f", and {images} over images"
        )

    @property
    def p(self) -> float:
        """The larger of the p-values over seeds and over images."""
        return max(self.paired.p, self.p_images or 0.0)

    @property
    def verdict(self) -> str:
        """`higher` or `lower` if the difference is significant, otherwise `no difference shown`."""
        if self.p_holm > LEVEL or self.paired.difference == 0:
            return NO_DIFFERENCE
        return "higher" if self.paired.difference > 0 else "lower"

    @property
    def better(self) -> bool | None:
        """True if the first level is significantly better, False if it is worse, None for no difference."""
        if self.verdict == NO_DIFFERENCE:
            return None
        return bool(self.scores.metric.is_better(self.paired.difference, 0.0))


@dataclasses.dataclass(frozen=True)
class TrendVerdict:
    """A trend of a score along the levels, with its corrected p-value.

    Attributes:
        scores: The results that the trend is computed from.
        metric: The name of the score, such as `accuracy`, or `overfit_gap`.
        trend: The trend.
        p_holm: The p-value of the trend, corrected by Holm.
    """

    scores: Scores
    metric: str
    trend: Trend
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """`rises` or `falls` if the trend is significant, otherwise `no trend shown`."""
        return NO_TREND if self.p_holm > LEVEL else self.trend.direction


@dataclasses.dataclass(frozen=True)
class Significance:
    """The results of all tests of a study.

    Attributes:
        comparisons: The comparisons with the baseline, then those with the best level.
        trends: The trends.
        planned: The number of planned tests.
    """

    comparisons: tuple[Comparison, ...]
    trends: tuple[TrendVerdict, ...]
    planned: int

    @property
    def claims(self) -> int:
        """The number of significant differences and trends."""
        return sum(each.p_holm <= LEVEL for each in (*self.comparisons, *self.trends))

    def notes(self) -> list[str]:
        """Returns sentences on what so few seeds cannot show."""
        pairs = max((each.paired.n for each in self.comparisons), default=0)
        if not pairs:
            return []
        least, needed = least_wilcoxon(pairs), pairs_needed(self.planned, families=_FAMILIES)
        found = []
        if pairs < 2:
            found.append("One seed cannot show any difference; at least two are needed.")
        if pairs < needed:
            seeds = counted(pairs, "seed")
            tests = counted(self.planned, "planned test")
            found.append(
                f"With {seeds}, the p-value of the exact signed-rank test is at least {least:.4g}, whatever "
                f"the differences are. For one of {tests} to be significant, {needed} seeds are needed. The "
                "verdicts come from a t-test, which assumes normally distributed differences."
            )
        return found


def assess_significance(groups: Sequence[Scores], baseline: Any, *, ordered: bool) -> Significance:
    """Runs all tests of a study, and corrects them for their number.

    Args:
        groups: The results of the levels, for each combination of the other factors.
        baseline: The level to compare with; None runs no tests.
        ordered: Whether to test trends along the levels.
    """
    if baseline is None:
        return Significance((), (), 0)
    with_baseline, trends, pairs = [], [], []
    for scores in groups:
        count = len(scores.levels)
        if baseline in scores.levels:
            base = scores.levels.index(baseline)
            with_baseline += [_compare(scores, a, base, "baseline") for a in range(count) if a != base]
        if ordered:
            trends += _trends(scores)
        pairs += [_compare(scores, *pair, "best") for pair in itertools.combinations(range(count), 2)]
    planned = holm([each.p for each in with_baseline] + [each.trend.p for each in trends], families=_FAMILIES)
    every = holm([each.p for each in pairs], families=_FAMILIES)
    first, second = planned[: len(with_baseline)], planned[len(with_baseline) :]
    with_best = [each for each in _corrected(pairs, every) if each.scores.best in (each.a, each.b)]
    return Significance(
        comparisons=(*_corrected(with_baseline, first), *map(_against_best, with_best)),
        trends=tuple(_corrected(trends, second)),
        planned=len(planned),
    )


def _corrected(tests: list[Any], p: np.ndarray) -> list[Any]:
    return [dataclasses.replace(each, p_holm=float(value)) for each, value in zip(tests, p, strict=True)]


def _compare(scores: Scores, a: int, b: int, family: str) -> Comparison:
    differences = scores.values[a] - scores.values[b]
    both = ~np.isnan(differences)
    found = paired_t_test(differences[both], scores.overlap)
    if scores.by_image is None or not both.any():
        return Comparison(scores, a, b, family, found, None)
    differences = scores.by_image[a, both] - scores.by_image[b, both]
    held = ~np.isnan(differences)
    net = np.where(held, differences, 0).sum(0)[held.any(0)]
    return Comparison(scores, a, b, family, found, mcnemar(net) if scores.binary else mean_p_value(net))


def _against_best(pair: Comparison) -> Comparison:
    """Returns the comparison with the best level as its second level."""
    if pair.b == pair.scores.best:
        return pair
    found = pair.paired
    low, high = (None if end is None else -end for end in (found.high, found.low))
    reversed_pair = PairedDifferences(-found.differences, -found.difference, low, high, found.p)
    return dataclasses.replace(pair, a=pair.b, b=pair.a, paired=reversed_pair)


def _trends(scores: Scores) -> list[TrendVerdict]:
    found = [TrendVerdict(scores, scores.metric.name, trend(scores.values, scores.totals()))]
    if scores.gap is not None:
        found.append(TrendVerdict(scores, "overfit_gap", trend(scores.gap)))
    return found
