"""The analysis of a study: means with intervals, significance tests, and a summary in words."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.report.predictions import read_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.studies.significance import ABSENT, Comparison, Scores, TrendVerdict, assess_significance
from transfer_jax.studies.statistics import least_wilcoxon, mean_interval, median_cost, wilcoxon
from transfer_jax.studies.study import Study
from transfer_jax.studies.study_summary import summary_paragraphs
from transfer_jax.tasks import Metric, SingleLabel, Task, task_class

_TARGET_BELOW_BEST = 0.01
"""Distance of the target from the best mean, of a score that is a fraction."""
_TARGET_FACTOR = 0.05
"""The same for other scores, as a fraction of the best mean."""

Rows = Sequence[Mapping[str, Any]]


def analyze_study(study: Study, rows: Rows, folder: Path) -> dict[str, Any]:
    """Returns the analysis of the finished trials of a study, as plain JSON values.

    Args:
        study: The study.
        rows: The full rows of its finished trials; see `read_rows`.
        folder: The folder of the study, which has the predictions of the trials.
    """
    task = task_of(rows)
    parts = rows_by_group(study, rows)
    groups = [group_scores(study, task, group, part, folder) for group, part in parts.items() if part]
    significance = assess_significance(groups, study.baseline, ordered=study.ordered)
    levels = [level for group, part in parts.items() for level in _levels(study, task, group, part)]
    target = [cost for scores in groups for cost in _target(study, scores, parts[scores.group])]
    found = {
        "study": study.name,
        "question": study.question,
        "task": task.kind,
        "metric": task.metrics[0].name,
        "finished": len(rows),
        "trials": len(study.trials),
        "levels": levels,
        "comparisons": [_comparison(each) for each in significance.comparisons],
        "trends": [_trend(each) for each in significance.trends],
        "target": target,
        "notes": significance.notes(),
        "operations": sum(row["operations"] for row in rows),
        "operations_uncached": sum(row["operations_uncached"] for row in rows),
        "train_seconds": sum(row["train_seconds"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
        "images": {name: sorted({row[name] for row in rows}) for name in _IMAGES},
    }
    return {"sentences": summary_paragraphs(study, groups, significance, found), **found}


_IMAGES = ("training_images", "held_out_images")

Group = tuple[tuple[str, Any], ...]


def task_of(rows: Rows) -> type[Task]:
    """Returns the task of the rows of a study; that of rows of earlier versions is `single_label`.

    Raises:
        ValueError: If they have several tasks, whose scores cannot be compared.
    """
    kinds = {task_class(row) for row in rows} or {task_class({})}
    if len(kinds) > 1:
        names = " and ".join(sorted(each.kind for each in kinds))
        raise ValueError(f"the trials have the tasks {names}, whose scores are different; compare one task")
    return kinds.pop()


def level_columns(task: type[Task]) -> tuple[str, ...]:
    """Returns the columns of rows whose means by level the analysis has."""
    main = dict.fromkeys((task.metrics[0].name, task.objective.name))
    return (
        *dict.fromkeys((*(metric.name for metric in task.metrics), task.objective.name)),
        "ece",
        *(f"test_{name}" for name in main),
        *(f"train_{name}" for name in main),
        "overfit_gap",
        "trainable_parameters",
        "operations",
        "train_seconds",
    )


def rows_by_group(study: Study, rows: Rows) -> dict[Group, list[Mapping[str, Any]]]:
    """Returns the rows for each combination of the values of all factors but the compared one."""
    others = [name for name in study.arms[0].factors if name != study.factor]
    found: dict[Group, list[Mapping[str, Any]]] = {}
    for arm in study.arms:
        found.setdefault(tuple((name, arm.factors[name]) for name in others), [])
    for row in rows:
        found[tuple((name, row[name]) for name in others)].append(row)
    return found


def group_scores(study: Study, task: type[Task], group: Group, rows: Rows, folder: Path) -> Scores:
    """Returns the results of a group of rows as arrays, with the predictions of each trial."""
    found = {(row[study.factor], row["seed"]): row for row in rows}
    levels = tuple(dict.fromkeys(row[study.factor] for row in rows))
    labels = {row[study.factor]: row["label"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})

    def column(name: str) -> np.ndarray:
        values = [[found.get((level, seed), {}).get(name) for seed in seeds] for level in levels]
        return np.array(values, float)

    trials = folder / workdir_files.TRIALS
    paths = {cell: workdir_files.predictions_file(trials / row["trial"]) for cell, row in found.items()}
    predicted = {cell: values_by_image(task, path) for cell, path in paths.items() if path.exists()}
    images = sorted({name for each in predicted.values() for name in each})
    position = {name: index for index, name in enumerate(images)}
    by_image = np.full((len(levels), len(seeds), len(images)), ABSENT, np.float32)
    for (level, seed), each in predicted.items():
        chosen = [position[name] for name in each]
        by_image[levels.index(level), seeds.index(seed), chosen] = list(each.values())
    gap = column("overfit_gap")
    configs = {trial.name: trial.config for trial in study.trials}
    overlap = np.mean([_overlap(row, configs[row["trial"]]) for row in rows])
    return Scores(
        levels=levels,
        labels=tuple(labels[level] for level in levels),
        values=column(task.metrics[0].name),
        gap=None if np.isnan(gap).all() else gap,
        by_image=by_image if len(predicted) == len(found) else None,
        metric=task.metrics[0],
        binary=issubclass(task, SingleLabel),
        overlap=float(overlap),
        group=group,
    )


def _overlap(row: Mapping[str, Any], config: TrainConfig) -> float:
    """Returns the ratio of validation to training images, before `images_per_class` is applied."""
    if config.images_per_class is None:
        return row["held_out_images"] / row["training_images"]
    return config.val_fraction / (1 - config.val_fraction)


def values_by_image(task: type[Task], path: Path) -> dict[str, float]:
    """Returns the value of each image by its name; see `Task.image_values`."""
    found = read_predictions(path)
    values = task(found.task.names).image_values(found.values, found.labels)
    return dict(zip(found.names, values.tolist(), strict=True))


def _levels(study: Study, task: type[Task], group: Group, rows: Rows) -> list[dict[str, Any]]:
    levels = dict.fromkeys(arm.factors[study.factor] for arm in study.arms)
    found = []
    for level in levels:
        own = [row for row in rows if row[study.factor] == level]
        if own:
            entry = {"level": level, "label": own[0]["label"], "group": dict(group), "n": len(own)}
            found.append(entry | _means(own, level_columns(task)))
    return found


def _means(rows: Rows, columns: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name in columns:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            each = mean_interval(values)
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            found[name] = {"mean": each.mean, "low": each.low, "high": each.high, "sd": sd}
            found[name]["interval"] = each.method
    return found


def _comparison(each: Comparison) -> dict[str, Any]:
    scores, found = each.scores, each.paired
    return {
        "a": scores.levels[each.a],
        "b": scores.levels[each.b],
        "a_label": scores.labels[each.a],
        "b_label": scores.labels[each.b],
        "group": dict(scores.group),
        "metric": scores.metric.name,
        "family": each.family,
        "n": found.n,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": each.p,
        "p_holm": each.p_holm,
        "test": each.test,
        "verdict": each.verdict,
        "p_t": found.p,
        "p_images": each.p_images,
        "p_wilcoxon": wilcoxon(found.differences),
        "least_p_wilcoxon": least_wilcoxon(found.n),
    }


def _trend(each: TrendVerdict) -> dict[str, Any]:
    return {
        "metric": each.metric,
        "group": dict(each.scores.group),
        "levels": each.trend.levels,
        "n": each.trend.seeds,
        "direction": each.trend.direction,
        "p": each.trend.p,
        "p_holm": each.p_holm,
        "p_page": each.trend.p_seeds,
        "p_images": each.trend.p_images,
        "test": "Page over seeds" + ("" if each.trend.p_images is None else ", and slopes over images"),
        "verdict": each.verdict,
    }


def _target(study: Study, scores: Scores, rows: Rows) -> list[dict[str, Any]]:
    """Returns the cost at which each level reaches the target accuracy and stays there.

    Costs are medians over seeds; None if half or more of the seeds do not end at the target.
    """
    metric = scores.metric
    target = _default_target(scores) if study.target is None else study.target
    found = []
    for level, label in zip(scores.levels, scores.labels, strict=True):
        own = [row for row in rows if row[study.factor] == level]
        first = [_first_to_stay(row["curve"], metric, target) for row in own]
        costs = {
            name: median_cost([None if each is None else each[name] for each in first])
            for name in ("operations", "seconds")
        }
        found.append(
            {
                "target": target,
                "level": level,
                "label": label,
                "group": dict(scores.group),
                "n": len(own),
                "reached": sum(each is not None for each in first),
                **costs,
            }
        )
    return found


def _default_target(scores: Scores) -> float:
    """Returns a score that is a little worse than the best mean."""
    best = float(scores.means[scores.best])
    distance = _TARGET_BELOW_BEST if scores.metric.format == "percent" else _TARGET_FACTOR * abs(best)
    return best + distance if scores.metric.lower_is_better else best - distance


def _first_to_stay(
    curve: Sequence[Mapping[str, Any]], metric: Metric, target: float
) -> Mapping[str, Any] | None:
    """Returns the first evaluation after which none misses the target, since a single one may be luck."""
    kept = itertools.takewhile(lambda each: not metric.is_better(target, each[metric.name]), reversed(curve))
    reached = list(kept)
    return reached[-1] if reached else None
