"""A summary of a study in words, made from its figures and verdicts alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.studies.significance import NO_DIFFERENCE, NO_TREND, Comparison, Scores, Significance
from transfer_jax.studies.statistics import mean_interval
from transfer_jax.studies.study import Study

_FITTED = 0.99
"""Arms whose score on the training images is at least this fit them, if the score is a fraction."""


def summary_paragraphs(
    study: Study, groups: Sequence[Scores], significance: Significance, analysis: Mapping[str, Any]
) -> list[str]:
    """Returns three paragraphs: the question and the runs; the result; the cost and what remains unclear.

    Args:
        study: The study.
        groups: The results of its levels, for each combination of the other factors.
        significance: The significance tests of these results.
        analysis: The other entries of the analysis.
    """
    question = _question(study, groups, analysis)
    if not groups:
        return [question, "No trial is finished yet.", "There are no results yet."]
    results = _variation(groups) if study.baseline is None else _results(study, groups, significance)
    return [question, results, _costs(groups, significance, analysis)]


def _question(study: Study, groups: Sequence[Scores], analysis: Mapping[str, Any]) -> str:
    arms, seeds = len(study.arms), len(study.seeds)
    images = ""
    if groups:
        names = ("training_images", "held_out_images")
        train, validation = (_range(analysis["images"][name]) for name in names)
        images = f" on {train} images and validates on {validation} others"
    question = study.question.rstrip(" ?.")
    text = f"{question}? The study trains {counted(arms, 'arm')} with {counted(seeds, 'seed')} each{images}"
    finished, trials = analysis["finished"], analysis["trials"]
    if finished == trials:
        return f"{text}."
    return f"{text}; {finished} of {counted(trials, 'trial')} {_is(finished)} finished."


def _results(study: Study, groups: Sequence[Scores], significance: Significance) -> str:
    paragraphs = []
    for scores in groups:
        comparisons = [each for each in significance.comparisons if each.scores is scores]
        best = _best(scores, comparisons)
        sentences = [f"{_where(scores)}{best}", _compared(comparisons), _trend(study, scores, significance)]
        paragraphs.append(" ".join(_sentence(each) for each in sentences if each))
    return " ".join(paragraphs)


def _where(scores: Scores) -> str:
    where = ", ".join(f"{name} {value}" for name, value in scores.group)
    return f"with {where}, " if where else ""


def _best(scores: Scores, comparisons: Sequence[Comparison]) -> str:
    values, metric = scores.values[scores.best], scores.metric
    used = scores.complete if scores.complete.any() else values == values
    mean = mean_interval(values[used])
    end = "lowest" if metric.lower_is_better else "highest"
    text = f"the mean {metric.title} is {end} for {scores.labels[scores.best]}: {metric.text(mean.mean)}"
    if mean.low is not None and mean.high is not None:
        low, high = mean.low, mean.high
        if metric.format == "percent":  # An interval of few seeds reaches beyond the possible values.
            low, high = max(low, 0.0), min(high, 1.0)
        text += f" (95% interval {metric.text(low)} to {metric.text(high)})"
    planned = [each for each in comparisons if each.family == "baseline"]
    if not planned:
        return text
    own = next((each for each in planned if each.a == scores.best), None)
    if own is None:
        return f"{text}; it is the baseline"
    return f"{text}, {_difference(own)}"


def _difference(comparison: Comparison) -> str:
    pair, metric = comparison.paired, comparison.scores.metric
    text = f"{metric.difference_text(pair.difference)} against {comparison.scores.labels[comparison.b]}"
    if pair.low is not None and pair.high is not None:
        low, high = (metric.difference_text(end).removesuffix(" points") for end in (pair.low, pair.high))
        interval = f"95% interval {low} to {high}"
        text += f" ({interval}, {_p_value(comparison.p_holm)})"
    return f"{text}, which is {'not ' if comparison.verdict == NO_DIFFERENCE else ''}significant"


def _compared(comparisons: Sequence[Comparison]) -> str:
    """Returns how many levels differ significantly from the baseline; empty for fewer than two."""
    planned = [each for each in comparisons if each.family == "baseline"]
    if len(planned) < 2:
        return ""
    verdicts = [each.better for each in planned]
    baseline = planned[0].scores.labels[planned[0].b]
    better, worse, same = (verdicts.count(verdict) for verdict in (True, False, None))
    if same == len(planned):
        return f"none of the {same} other levels differs significantly from {baseline}"
    return (
        f"of the {len(planned)} other levels, {better} {_is(better)} significantly better than "
        f"{baseline}, {worse} {_is(worse)} significantly worse, and {same} "
        f"{'does' if same == 1 else 'do'} not differ significantly"
    )


def _trend(study: Study, scores: Scores, significance: Significance) -> str:
    trends = []
    for each in significance.trends:
        if each.scores is scores:
            verb = "shows no trend" if each.verdict == NO_TREND else each.verdict
            title = scores.metric.title
            gap = each.metric != scores.metric.name
            name = f"the gap between training and validation {title}" if gap else f"the {title}"
            trends.append(f"{name} {verb} ({_p_value(each.p_holm)})")
    if not trends:
        return ""
    text = f"along the levels of {study.factor}, {' and '.join(trends)}"
    fraction = scores.metric.format == "percent"
    if fraction and scores.gap is not None and np.nanmin(scores.values + scores.gap) >= _FITTED:
        text += f"; all arms fit the training images, so the gap only mirrors the {scores.metric.title}"
    return text


def _variation(groups: Sequence[Scores]) -> str:
    """Returns the spread of the score of each level, for a study without a baseline."""
    sentences = []
    for scores in groups:
        metric = scores.metric
        for label, row in zip(scores.labels, scores.values, strict=True):
            values = row[row == row]
            if len(values) > 1:
                spread = metric.difference_text(values.std(ddof=1)).removeprefix("+")
                mean, low, high = map(metric.text, (values.mean(), values.min(), values.max()))
                sentences.append(
                    f"For {label}, the {metric.title} has a standard deviation of {spread} around "
                    f"{mean} (lowest {low}, highest {high})."
                )
    return " ".join(sentences) or "One seed does not show how much results vary; at least two are needed."


def _costs(groups: Sequence[Scores], significance: Significance, analysis: Mapping[str, Any]) -> str:
    sentences = [_cheapest(scores, analysis) for scores in groups]
    saved = analysis["operations_uncached"] / max(analysis["operations"], 1)
    if saved > 1.05:
        sentences.append(
            f"all trials together take {_operations(analysis['operations'])}; without cached features they "
            f"would take {saved:.1f} times as many"
        )
    best = [each for each in significance.comparisons if each.family == "best"]
    similar = sum(each.verdict == NO_DIFFERENCE for each in best)
    if similar:
        verb = "does" if similar == 1 else "do"
        sentences.append(
            f"it is unclear which level is best: {counted(similar, 'other level')} {verb} not differ "
            "significantly from the one with the best mean"
        )
    return " ".join(_sentence(each) for each in sentences)


def _cheapest(scores: Scores, analysis: Mapping[str, Any]) -> str:
    group = dict(scores.group)
    costs = [each for each in analysis["target"] if each["group"] == group]
    target = scores.metric.text(costs[0]["target"])
    beyond = "less" if scores.metric.lower_is_better else "more"
    reached = [each for each in costs if each["operations"] is not None]
    if not reached:
        return f"{_where(scores)}no level ends at {target} or {beyond} in most of its seeds"
    least = min(reached, key=lambda each: each["operations"])
    return (
        f"{_where(scores)}the cheapest level that reaches {target} and stays there is {least['label']}, "
        f"with {_operations(least['operations'])} and {least['seconds']:,.0f} s (medians)"
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _range(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "an unknown number of"
    return f"{known[0]:,}" if known[0] == known[-1] else f"{known[0]:,} to {known[-1]:,}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _operations(count: float) -> str:
    for size, name in ((1e15, "thousand trillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:,.3g} {name} operations"
    return f"{count:,.0f} operations"
