"""What may be claimed of a study: every test that is made, corrected for all of them.

Two families of tests share the errors of 5 %. Those that were planned: each level against the baseline, and
the trends. And, since the best level is only known afterwards, every level against every other, of which
those with the best are told. A difference of accuracy is shown only where it holds over seeds (corrected
resampled t-test) and over images (McNemar's test): the first alone knows how random training is, the second
alone how few images there are. `benchmarks/false_positives.py` measures how often anything is claimed of arms
that are alike.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer_jax.studies.statistics import (
    LEVEL,
    Paired,
    Trend,
    holm,
    least_wilcoxon,
    mcnemar,
    paired,
    pairs_needed,
    trend,
)

NOTHING = "no difference shown"
NO_TREND = "no trend shown"
ABSENT = -1
TEST = "corrected resampled t over seeds, and McNemar over images"
_FAMILIES = 2


@dataclasses.dataclass(frozen=True)
class Scores:
    """The results of levels that are compared, all other factors being equal.

    Attributes:
        levels: The levels.
        labels: What to call them.
        accuracy: `(levels, seeds)`; nan where there is none.
        gap: Accuracy on the training images less that, likewise; None if not known.
        right: int8 `(levels, seeds, images)`: 1 right, 0 wrong, `ABSENT` not held out or not there; None if
            not known.
        overlap: Held-out images over training images.
        group: The values of the other factors.
    """

    levels: tuple[Any, ...]
    labels: tuple[str, ...]
    accuracy: np.ndarray
    gap: np.ndarray | None = None
    right: np.ndarray | None = None
    overlap: float = 1 / 3
    group: tuple[tuple[str, Any], ...] = ()

    @functools.cached_property
    def complete(self) -> np.ndarray:
        """`(seeds,)`, whether a seed has all levels."""
        return np.asarray(~np.isnan(self.accuracy).any(0))

    @functools.cached_property
    def means(self) -> np.ndarray:
        """The mean accuracy of each level, over the same seeds where any has all levels."""
        found = self.accuracy[:, self.complete] if self.complete.any() else self.accuracy
        return np.nanmean(found, axis=1)

    @property
    def best(self) -> int:
        """Position of the level of the highest mean."""
        return int(self.means.argmax())

    def total_right(self) -> np.ndarray | None:
        """`(levels, images)`: in how many of the seeds that have all levels each was right on each image."""
        if self.right is None or not self.complete.any():
            return None
        right = self.right[:, self.complete]
        held = (right != ABSENT).all(0)
        return np.where(held, right, 0).sum(1)[:, held.any(0)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One level against another.

    Attributes:
        scores: Where they are from.
        a: Position of the level that is asked about.
        b: That of the one it is compared with.
        family: `baseline` or `best`.
        paired: The differences a - b over seeds.
        p_mcnemar: Over images; None without predictions.
        p_holm: The larger of both p-values, corrected.
    """

    scores: Scores
    a: int
    b: int
    family: str
    paired: Paired
    p_mcnemar: float | None
    p_holm: float = 1.0

    @property
    def p(self) -> float:
        """The larger p-value: of seeds or of images."""
        return max(self.paired.p, self.p_mcnemar or 0.0)

    @property
    def verdict(self) -> str:
        """`higher` or `lower`, if it may be claimed."""
        if self.p_holm > LEVEL or self.paired.difference == 0:
            return NOTHING
        return "higher" if self.paired.difference > 0 else "lower"


@dataclasses.dataclass(frozen=True)
class JudgedTrend:
    """A trend of a score over the levels.

    Attributes:
        scores: Where it is from.
        metric: `accuracy` or `overfit_gap`.
        trend: The trend.
        p_holm: Its p-value, corrected.
    """

    scores: Scores
    metric: str
    trend: Trend
    p_holm: float = 1.0

    @property
    def verdict(self) -> str:
        """`rises` or `falls`, if it may be claimed."""
        return NO_TREND if self.p_holm > LEVEL else self.trend.direction


@dataclasses.dataclass(frozen=True)
class Significance:
    """All that was tested.

    Attributes:
        comparisons: With the baseline, then with the best.
        trends: The trends.
        planned: Size of the family of planned tests.
    """

    comparisons: tuple[Comparison, ...]
    trends: tuple[JudgedTrend, ...]
    planned: int

    @property
    def claims(self) -> int:
        """How many differences and trends are claimed."""
        return sum(each.p_holm <= LEVEL for each in (*self.comparisons, *self.trends))

    def notes(self) -> list[str]:
        """What the number of seeds cannot show, whatever they find."""
        pairs = max((each.paired.n for each in self.comparisons), default=0)
        if not pairs:
            return []
        least, needed = least_wilcoxon(pairs), pairs_needed(self.planned, families=_FAMILIES)
        found = []
        if pairs < 2:
            found.append("With one seed no difference can be shown; it takes two at the very least.")
        if pairs < needed:
            seeds = "1 seed" if pairs == 1 else f"{pairs} seeds"
            found.append(
                f"With {seeds} the exact signed-rank test cannot go below p = {least:.4g}, whatever the "
                f"differences; for one of {self.planned} planned tests to be significant it would take "
                f"{needed} seeds. Verdicts on pairs rest on a t-test, which takes differences to be normal."
            )
        return found


def judge(groups: Sequence[Scores], baseline: Any, *, ordered: bool) -> Significance:
    """Makes all tests, and corrects for all of them.

    Args:
        groups: The levels by the values of the other factors.
        baseline: The level to compare with; None compares nothing.
        ordered: Whether trends are asked for.
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
    differences = scores.accuracy[a] - scores.accuracy[b]
    both = ~np.isnan(differences)
    found = paired(differences[both], scores.overlap)
    if scores.right is None or not both.any():
        return Comparison(scores, a, b, family, found, None)
    first, second = scores.right[a, both], scores.right[b, both]
    held = (first != ABSENT) & (second != ABSENT)
    net = np.where(held, first.astype(np.int16) - second, 0).sum(0)
    return Comparison(scores, a, b, family, found, mcnemar(net))


def _against_best(pair: Comparison) -> Comparison:
    """The comparison turned so that the best level is the one compared with."""
    if pair.b == pair.scores.best:
        return pair
    found = pair.paired
    low, high = (None if end is None else -end for end in (found.high, found.low))
    turned = Paired(-found.differences, -found.difference, low, high, found.p)
    return dataclasses.replace(pair, a=pair.b, b=pair.a, paired=turned)


def _trends(scores: Scores) -> list[JudgedTrend]:
    found = [JudgedTrend(scores, "accuracy", trend(scores.accuracy, scores.total_right()))]
    if scores.gap is not None:
        found.append(JudgedTrend(scores, "overfit_gap", trend(scores.gap)))
    return found
