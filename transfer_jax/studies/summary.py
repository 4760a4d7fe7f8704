"""Three sentences on a study, made of its figures and verdicts alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.studies.significance import NO_TREND, NOTHING, Comparison, Scores, Significance
from transfer_jax.studies.statistics import mean_interval
from transfer_jax.studies.study import Study

_TRENDS = {"accuracy": "the accuracy", "overfit_gap": "the gap between training and held-out accuracy"}
_FIT = 0.99
"""Accuracy on training images from which on nothing is left to fit."""


def sentences(
    study: Study, groups: Sequence[Scores], judgement: Significance, found: Mapping[str, Any]
) -> list[str]:
    """What was asked; what was found; what it costs, and what cannot be said.

    Args:
        study: The study.
        groups: Its results.
        judgement: What may be claimed of them.
        found: The rest of the answer.
    """
    asked = _asked(study, groups, found)
    if not groups:
        return [asked, "No trial is finished yet.", "Nothing can be said."]
    tell = _variation if study.baseline is None else _findings
    return [asked, tell(study, groups, judgement), _costs(study, groups, judgement, found)]


def _asked(study: Study, groups: Sequence[Scores], found: Mapping[str, Any]) -> str:
    arms, seeds = len(study.arms), len(study.seeds)
    done = "" if found["finished"] == found["trials"] else f", of which {found['finished']} are finished"
    sizes = ""
    if groups:
        train, held = (_range(found["images"][name]) for name in ("training_images", "held_out_images"))
        sizes = f" on {train} images, tested on {held} others"
    asked = study.question.rstrip(" ?.")
    return f"Asked was: {asked}? {_many(arms, 'arm')} with {_many(seeds, 'seed')} each{done}, trained{sizes}."


def _findings(study: Study, groups: Sequence[Scores], judgement: Significance) -> str:
    told = []
    for scores in groups:
        where = ", ".join(f"{name} {value}" for name, value in scores.group)
        own = [each for each in judgement.comparisons if each.scores is scores]
        line = f"{_best(scores, own)}{_counts(own)}{_trend(study, scores, judgement)}"
        told.append(f"with {where}, {line}" if where else line)
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."


def _best(scores: Scores, comparisons: Sequence[Comparison]) -> str:
    accuracy = scores.accuracy[scores.best]
    used = scores.complete if scores.complete.any() else accuracy == accuracy
    found = mean_interval(accuracy[used])
    line = f"the mean accuracy was highest for {scores.labels[scores.best]}: {found.mean:.1%}"
    if found.low is not None and found.high is not None:
        line += f" (95 % interval {100 * found.low:.1f} to {100 * found.high:.1f})"
    planned = [each for each in comparisons if each.family == "baseline"]
    if not planned:
        return line
    own = next((each for each in planned if each.a == scores.best), None)
    if own is None:
        return f"{line}, the baseline itself"
    return f"{line}, {_difference(own)}"


def _difference(each: Comparison) -> str:
    found = each.paired
    line = f"{100 * found.difference:+.1f} points against {each.scores.labels[each.b]}"
    if found.low is not None and found.high is not None:
        line += f" ({100 * found.low:+.1f} to {100 * found.high:+.1f}, {_p(each.p_holm)})"
    return f"{line}: {NOTHING}" if each.verdict == NOTHING else f"{line}, a difference that is shown"


def _counts(comparisons: Sequence[Comparison]) -> str:
    planned = [each for each in comparisons if each.family == "baseline"]
    if len(planned) < 2:
        return ""
    verdicts = [each.verdict for each in planned]
    label = planned[0].scores.labels[planned[0].b]
    higher, lower, same = (verdicts.count(name) for name in ("higher", "lower", NOTHING))
    if same == len(planned):
        return f"; none of the {same} others is shown to differ from {label}"
    return (
        f"; of the {len(planned)} others, {_are(higher)} shown to be more accurate than {label}, "
        f"{lower} less accurate, and for {same} there is {NOTHING}"
    )


def _trend(study: Study, scores: Scores, judgement: Significance) -> str:
    told = []
    for each in judgement.trends:
        if each.scores is scores:
            what = _TRENDS[each.metric]
            shown = "has no trend that is shown" if each.verdict == NO_TREND else each.verdict
            told.append(f"{what} {shown} ({_p(each.p_holm)})")
    if not told:
        return ""
    line = f"; with more {study.factor}, {' and '.join(told)}"
    if scores.gap is not None and np.nanmin(scores.accuracy + scores.gap) >= _FIT:
        line += ", but all arms fit the training images, so that the gap only mirrors the accuracy"
    return line


def _variation(study: Study, groups: Sequence[Scores], judgement: Significance) -> str:
    told = []
    for scores in groups:
        for label, row in zip(scores.labels, scores.accuracy, strict=True):
            values = row[row == row]
            if len(values) > 1:
                spread = f"{100 * values.std(ddof=1):.1f} points"
                told.append(
                    f"{label}, the accuracy had a standard deviation of {spread} around {values.mean():.1%} "
                    f"(lowest {values.min():.1%}, highest {values.max():.1%})"
                )
    return f"By {'; by '.join(told)}." if told else "One seed says nothing of how results vary."


def _costs(study: Study, groups: Sequence[Scores], judgement: Significance, found: Mapping[str, Any]) -> str:
    told = [_cheapest(scores, found) for scores in groups]
    saved = found["operations_uncached"] / max(found["operations"], 1)
    if saved > 1.05:
        told.append(
            f"all steps together took {_operations(found['operations'])}, and on images instead of cached "
            f"features would have taken {saved:.1f} times as many"
        )
    open_ = [each for each in judgement.comparisons if each.family == "best" and each.verdict == NOTHING]
    if open_:
        others = _many(len(open_), "other")
        told.append(f"which level is best cannot be said: {others} cannot be told from the highest")
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."


def _cheapest(scores: Scores, found: Mapping[str, Any]) -> str:
    group = dict(scores.group)
    costs = [each for each in found["target"] if each["group"] == group]
    target = costs[0]["target"]
    where = "".join(f" with {name} {value}" for name, value in scores.group)
    reached = [each for each in costs if each["operations"] is not None]
    if not reached:
        return f"no arm ended at {target:.1%}{where} in most of its seeds"
    least = min(reached, key=lambda each: each["operations"])
    return (
        f"{least['label']} comes to stay at {target:.1%}{where} at the least cost, "
        f"{_operations(least['operations'])} and {least['seconds']:,.0f} s (medians)"
    )


def _range(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "unknown"
    return f"{known[0]:,}" if known[0] == known[-1] else f"{known[0]:,} to {known[-1]:,}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count} are"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _operations(count: float) -> str:
    for size, name in ((1e15, "thousand trillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:,.3g} {name} operations"
    return f"{count:,.0f} operations"
