import json

import pytest
from scipy.stats import binomtest

from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_summary import accuracy_paragraph, never_trained, run_summary


def test_they_say_what_the_files_say(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    setup, accuracy, cost = run_summary(run)
    assert setup == (
        "efficientnet_lite0 starts from pretrained weights and trains on 150 images of toy, which have "
        "3 classes. The first phase trains the head for 6 epochs; the second trains the last 2 blocks and "
        "the head for 4 epochs."
    )
    scores = run.scores
    right = sum(scores["confusion"][index][index] for index in range(3))
    low, high = binomtest(right, scores["images"]).proportion_ci(0.95, method="wilson")
    commonest = max(map(sum, scores["confusion"]))
    assert (
        f"The model classifies {right} of {scores['images']} validation images correctly: "
        f"{scores['accuracy']:.1%} (95% interval: {low:.1%} to {high:.1%})." in accuracy
    )
    assert f"would be right for {commonest / scores['images']:.1%}" in accuracy
    assert cost == (
        "At most 1,251 of the 2,151 parameters (58.2%) are trained at a time. "
        "The run took 22 s; training steps were 54.5% of this time. "
        "The 2 blocks from stem to blocks.1 are frozen: hashes before and after each phase show no change."
    )


def test_no_proof_is_claimed_where_hashes_differ(make_run, tmp_path):
    workdir = make_run(tmp_path)
    path = workdir / "certificates" / "01-head.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32, 1))
    assert "hashes" not in run_summary(RunFiles.from_workdir(workdir))[2]


def test_a_run_under_way_says_so(make_run, tmp_path):
    _, accuracy, _ = run_summary(RunFiles.from_workdir(make_run(tmp_path, epochs=8)))
    assert accuracy.startswith(
        "The run is not finished: epoch 2 of 4 of phase top is done. So far the model classifies "
    )


def test_a_new_run_has_no_accuracy(make_run, tmp_path):
    workdir = make_run(tmp_path, epochs=0)
    (workdir / "goodput.json").unlink()
    setup, accuracy, cost = run_summary(RunFiles.from_workdir(workdir))
    assert setup.startswith(
        "efficientnet_lite0 starts from pretrained weights and trains on 150 images of toy. "
    )
    assert accuracy == "No validation image has been scored yet: no epoch is finished."
    assert cost == "Nothing has been trained yet."


INTERVAL = {"mae": 2.5, "mae_interval": [2.1, 2.9], "r2": 0.75}


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (
            {"task": "regression", "images": 50, "per_quantity": {"sum": INTERVAL}},
            "The model predicts sum for 50 validation images. On average, a prediction is 2.5 off (95% "
            "interval: 2.1 to 2.9). R² is 0.75: 1 is perfect, and always predicting the mean gives 0.",
        ),
        (
            {
                "task": "regression",
                "images": 1,
                "per_quantity": {"sum": {"mae": 2.5, "mae_interval": None, "r2": None}},
            },
            "The model predicts sum for 1 validation image. On average, a prediction is 2.5 off.",
        ),
        (
            {"task": "multi_label", "images": 50, "mean_average_precision": 0.5},
            "The model is scored on 50 validation images: mAP 50.0% (mean average precision of the labels). "
            "The tiles below show its other scores.",
        ),
    ],
)
def test_scores_of_other_tasks_are_explained(make_run, tmp_path, scores, text):
    run = RunFiles.from_workdir(make_run(tmp_path))
    line = {**run.evaluations[-1], **scores}
    line.pop("confusion", None)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    assert accuracy_paragraph(RunFiles.from_workdir(tmp_path)) == text


def test_only_a_prefix_counts_as_never_trained(make_run, tmp_path):
    workdir = make_run(tmp_path)
    assert never_trained(RunFiles.from_workdir(workdir)) == ["stem", "blocks.1"]
    path = workdir / "certificates" / "02-top.json"
    content = json.loads(path.read_text())
    content["spans"][0]["trained"]["blocks"] = ["stem", "head"]
    path.write_text(json.dumps(content))
    assert never_trained(RunFiles.from_workdir(workdir)) == []
