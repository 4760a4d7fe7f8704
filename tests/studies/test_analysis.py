"""Analyses of constructed rows with known results."""

import dataclasses
import json

import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.report.predictions import write_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.studies.analysis import analyze_study
from transfer_jax.studies.study import Arm, Study
from transfer_jax.studies.table import read_table, write_table
from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel

CONFIG = TrainConfig(images="cells", model="efficientnet_lite_tiny", weights="none")
GAINS = (0.0, 0.0, 0.15)
IMAGES = 200


def study_of(seeds: int, kinds=("",), **changes) -> Study:
    arms = tuple(
        Arm(
            name=f"{kind}{depth}",
            label=f"depth {depth}",
            factors={"depth": depth} | ({"kind": kind} if kind else {}),
            config=CONFIG,
        )
        for kind in kinds
        for depth in range(3)
    )
    settings = {"name": "depths", "question": "How deep?", "factor": "depth", "baseline": 0, "ordered": True}
    return Study(**{**settings, "arms": arms, "seeds": tuple(range(seeds)), **changes})


def rows_of(study: Study, folder, *, leave_out=()) -> list[dict]:
    """Returns rows whose seeds all validate on 200 images; a level is correct on the first ones."""
    rows = []
    for trial in study.trials:
        if trial.name in leave_out:
            continue
        depth, seed = trial.factors["depth"], trial.factors["seed"]
        luck = np.random.default_rng([depth, seed]).integers(-1, 2)
        right = round(IMAGES * (0.7 + GAINS[depth])) + int(luck)
        path = folder / workdir_files.TRIALS / trial.name / "predictions.csv"
        path.parent.mkdir(parents=True)
        sure = np.where(np.arange(IMAGES) < right, 0.9, 0.1)
        names, truth = [f"{i}.png" for i in range(IMAGES)], np.zeros(IMAGES, np.int32)
        write_predictions(path, names, SingleLabel(("a", "b")), np.stack([sure, 1 - sure], 1), truth)
        accuracy = right / IMAGES
        curve = [
            {"phase": "top", "epoch": e, "accuracy": accuracy * e / 2, "operations": e * 10**9, "seconds": e}
            for e in (1, 2)
        ]
        rows.append(
            {
                "trial": trial.name,
                "label": trial.label,
                **trial.factors,
                "accuracy": accuracy,
                "overfit_gap": 0.02 * depth + 0.001 * seed,
                "held_out_images": IMAGES,
                "training_images": 600,
                "operations": 2 * 10**9,
                "operations_uncached": 6 * 10**9,
                "train_seconds": 2.0,
                "seconds": 3.0,
                "roc_auc": None,
                "status": "finished",
                "curve": curve,
            }
        )
    return rows


def test_a_gap_between_fitted_arms_is_explained(tmp_path):
    study = study_of(5)
    rows = rows_of(study, tmp_path)
    assert "fit the training images" not in analyze_study(study, rows, tmp_path)["sentences"][1]
    fit = [{**row, "overfit_gap": 0.995 - row["accuracy"]} for row in rows]
    text = analyze_study(study, fit, tmp_path)["sentences"][1]
    assert "all arms fit the training images, so the gap only mirrors the accuracy" in text


def test_an_analysis_has_means_verdicts_and_three_paragraphs(tmp_path):
    study = study_of(5)
    found = analyze_study(study, rows_of(study, tmp_path), tmp_path)
    assert json.loads(json.dumps(found)) == found
    levels = {each["level"]: each for each in found["levels"]}
    assert levels[2]["accuracy"]["mean"] == pytest.approx(0.85, abs=0.005)
    assert levels[2]["accuracy"]["low"] < 0.85 < levels[2]["accuracy"]["high"] + 0.01
    assert (levels[0]["n"], levels[0]["label"], levels[0]["group"]) == (5, "depth 0", {})
    planned = {c["a"]: c for c in found["comparisons"] if c["family"] == "baseline"}
    assert (planned[1]["verdict"], planned[2]["verdict"]) == ("no difference shown", "higher")
    assert planned[2]["difference"] == pytest.approx(0.15, abs=0.01)
    assert planned[2]["p_wilcoxon"] == planned[2]["least_p_wilcoxon"] == 0.0625
    assert [(t["metric"], t["verdict"]) for t in found["trends"]] == [
        ("accuracy", "no trend shown"),  # Two of three levels are equal.
        ("overfit_gap", "rises"),
    ]
    question, results, cost = found["sentences"]
    assert question == (
        "How deep? The study trains 3 arms with 5 seeds each on 600 images and validates on 200 others."
    )
    assert results.startswith(
        f"The mean accuracy is highest for depth 2: {levels[2]['accuracy']['mean']:.1%}"
    )
    assert "points against depth 0" in results
    assert ", which is significant. Of the 2 other levels, 1 is significantly better than depth 0" in results
    assert "0 are significantly worse, and 1 does not differ significantly." in results
    assert "Along the levels of depth, the accuracy shows no trend (p" in results
    assert "the gap between training and validation accuracy rises (p" in results
    assert cost.startswith("The cheapest level that reaches 8")
    assert "and stays there is depth 2, with 2 billion" in cost
    assert "2 billion operations and 2 s" in cost
    assert "3.0 times as many" in cost
    assert "is at least 0.0625" in found["notes"][0]


def rows_of_task(study: Study, folder, task) -> list[dict]:
    """Returns rows whose predictions are less noisy at higher levels, with the scores of a task."""
    rows = rows_of(study, folder)
    truth = np.random.default_rng(0).integers(0, 2, (IMAGES, len(task.names)))
    labels = truth.astype(task.label_dtype) if task.label_prefix else truth[:, 0].astype(task.label_dtype)
    metric = task.metrics[0]
    for row in rows:
        noise = np.random.default_rng([row["depth"], row["seed"]]).normal(size=truth.shape)
        predictions = truth + (1.2 - 0.4 * row["depth"]) * noise
        if task.probabilistic:
            predictions = 1 / (1 + np.exp(4 - 8 * predictions))
        if not task.label_prefix:
            predictions = np.stack([1 - predictions[:, 0], predictions[:, 0]], 1)
        path = folder / workdir_files.TRIALS / row["trial"] / "predictions.csv"
        write_predictions(path, [f"{i}.png" for i in range(IMAGES)], task, predictions, labels)
        value = metric.of(task.scores(predictions, labels))
        curve = [{**each, metric.name: 2 * value if each["epoch"] == 1 else value} for each in row["curve"]]
        row |= {"task": task.kind, metric.name: value, "curve": curve}
    return rows


@pytest.mark.parametrize(
    ("task", "title", "end", "test"),
    [
        (MultiLabel(("a", "b", "c")), "mAP", "highest", "t"),
        (Regression(("age", "size")), "MAE", "lowest", "t"),
        (Ordinal(("a", "b")), "accuracy", "highest", "McNemar"),
    ],
    ids=["multi_label", "regression", "ordinal"],
)
def test_the_score_is_that_of_the_task(tmp_path, task, title, end, test):
    study = study_of(5)
    rows = rows_of_task(study, tmp_path, task)
    found = analyze_study(study, rows, tmp_path)
    metric = task.metrics[0]
    assert (found["task"], found["metric"]) == (task.kind, metric.name)
    levels = {each["level"]: each[metric.name]["mean"] for each in found["levels"]}
    assert metric.is_better(levels[2], levels[1])
    assert metric.is_better(levels[1], levels[0])
    planned = {c["a"]: c for c in found["comparisons"] if c["family"] == "baseline"}
    assert planned[2]["verdict"] == ("lower" if metric.lower_is_better else "higher")
    assert planned[2]["test"] == f"corrected resampled t over seeds, and {test} over images"
    assert planned[2]["p_images"] < 1e-3
    assert {c["b"] for c in found["comparisons"] if c["family"] == "best"} == {2}
    assert found["trends"][0]["metric"] == metric.name
    assert found["trends"][0]["p_images"] < 1e-3
    results, cost = found["sentences"][1:]
    assert results.startswith(
        f"The mean {title} is {end} for depth 2: {metric.text(levels[2])} (95% interval"
    )
    assert "significantly better than depth 0, 0 are significantly worse" in results
    target = found["target"][0]["target"]
    assert not metric.is_better(target, levels[2])
    assert target == pytest.approx(levels[2], rel=0.06)
    assert f"level that reaches {metric.text(target)} and stays there is depth 2" in cost
    if metric.lower_is_better:  # The first epoch misses the target.
        assert found["target"][2]["operations"] == 2e9


def test_several_tasks_are_an_error(tmp_path):
    study = study_of(2)
    rows = rows_of(study, tmp_path)
    with pytest.raises(ValueError, match="the trials have the tasks regression and single_label, whose"):
        analyze_study(study, [{**rows[0], "task": "regression"}, *rows[1:]], tmp_path)


def test_the_target_is_a_point_below_the_best_or_given(tmp_path):
    study = study_of(3)
    rows = rows_of(study, tmp_path)
    best = max(each["accuracy"]["mean"] for each in analyze_study(study, rows, tmp_path)["levels"])
    assert {each["target"] for each in analyze_study(study, rows, tmp_path)["target"]} == {best - 0.01}
    easy = analyze_study(study_of(3, target=0.3), rows, tmp_path)["target"]
    assert [(each["reached"], each["operations"], each["seconds"]) for each in easy] == [(3, 1e9, 1)] * 3
    hard = analyze_study(study_of(3, target=0.99), rows, tmp_path)
    assert [(each["reached"], each["operations"]) for each in hard["target"]] == [(0, None)] * 3
    assert "No level ends at 99.0% or more in most of its seeds" in hard["sentences"][2]


def test_fewer_training_images_do_not_widen_intervals(tmp_path):
    """The overlap of splits depends on the split, not on the number of images that are then used."""
    study = study_of(5)
    rows = rows_of(study, tmp_path)
    arms = [
        dataclasses.replace(arm, config=dataclasses.replace(CONFIG, images_per_class=5)) for arm in study.arms
    ]
    few = [{**row, "training_images": 10} for row in rows]
    limited = analyze_study(dataclasses.replace(study, arms=tuple(arms)), few, tmp_path)
    everything = analyze_study(study, rows, tmp_path)
    for found, expected in zip(limited["comparisons"], everything["comparisons"], strict=True):
        assert (found["low"], found["high"]) == pytest.approx((expected["low"], expected["high"]))


def test_a_lucky_epoch_is_not_the_target(tmp_path):
    study = study_of(3, target=0.65)
    rows = rows_of(study, tmp_path)
    for row in rows:
        accuracies = {0: (0.7, 0.6, 0.7, 0.8), 1: (0.7, 0.8, 0.7, 0.6), 2: (0.6, 0.7, 0.65, 0.7)}[
            row["depth"]
        ]
        row["curve"] = [
            {"phase": "top", "epoch": e, "accuracy": accuracy, "operations": e * 10**9, "seconds": e}
            for e, accuracy in enumerate(accuracies, 1)
        ]
    found = analyze_study(study, rows, tmp_path)["target"]
    assert [(each["reached"], each["operations"]) for each in found] == [(3, 3e9), (0, None), (3, 2e9)]


def test_no_difference_at_all_is_one_sentence(tmp_path):
    study = study_of(3)
    rows = [{**row, "accuracy": 0.7} for row in rows_of(study, tmp_path)]
    assert (
        "None of the 2 other levels differs significantly from depth 0."
        in analyze_study(study, rows, tmp_path)["sentences"][1]
    )


def test_other_factors_are_reported_apart(tmp_path):
    study = study_of(4, kinds=("x", "y"))
    found = analyze_study(study, rows_of(study, tmp_path), tmp_path)
    assert [each["group"] for each in found["levels"]] == [{"kind": "x"}] * 3 + [{"kind": "y"}] * 3
    planned = [c for c in found["comparisons"] if c["family"] == "baseline"]
    assert [(c["group"]["kind"], c["a"]) for c in planned] == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]
    assert found["sentences"][1].count("With kind x, ") == found["sentences"][1].count("With kind y, ") == 1


def test_unfinished_trials_are_counted(tmp_path):
    study = study_of(3)
    found = analyze_study(study, rows_of(study, tmp_path, leave_out=("1-seed1",)), tmp_path)
    assert (found["finished"], found["trials"]) == (8, 9)
    assert "; 8 of 9 trials are finished." in found["sentences"][0]
    planned = {c["a"]: c["n"] for c in found["comparisons"] if c["family"] == "baseline"}
    assert planned == {1: 2, 2: 3}
    assert analyze_study(study, [], tmp_path)["sentences"][1] == "No trial is finished yet."


def test_without_a_baseline_the_spread_is_reported(tmp_path):
    study = study_of(4, baseline=None, ordered=False)
    rows = rows_of(study, tmp_path)
    spread = np.std([row["accuracy"] for row in rows if row["depth"] == 0], ddof=1)
    (_, text, _) = analyze_study(study, rows, tmp_path)["sentences"]
    assert text.startswith(f"For depth 0, the accuracy has a standard deviation of {100 * spread:.1f} points")


def test_the_table_is_read_as_it_was_written(tmp_path):
    study = study_of(2)
    rows = rows_of(study, tmp_path)
    write_table(rows, tmp_path)
    found = read_table(tmp_path)
    assert found == [{name: value for name, value in row.items() if name != "curve"} for row in rows]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["table.parquet"]
    assert read_table(tmp_path, ["seed"]) == [{"seed": seed} for _ in range(3) for seed in range(2)]
