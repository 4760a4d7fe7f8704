import json

from scipy.stats import binomtest

from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_summary import never_trained, run_summary


def test_they_say_what_the_files_say(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    setup, accuracy, cost = run_summary(run)
    assert setup == (
        "efficientnet_lite0 is fine-tuned from pretrained weights on 150 images of toy (3 classes). "
        "The schedule trains head for 6 epochs, then top(2) for 4 epochs."
    )
    scores = run.scores
    right = sum(scores["confusion"][index][index] for index in range(3))
    low, high = binomtest(right, scores["images"]).proportion_ci(0.95, method="wilson")
    commonest = max(map(sum, scores["confusion"]))
    assert (
        f"The model classifies {right} of {scores['images']} validation images correctly: "
        f"{scores['accuracy']:.1%} (95% interval {low:.1%} to {high:.1%})." in accuracy
    )
    assert f"would give {commonest / scores['images']:.1%}" in accuracy
    assert cost == (
        "The run trained at most 1,251 of 2,151 parameters (58.2%) at a time. "
        "It took 22 s, of which 54.5% were training steps. "
        "The 2 blocks from stem to blocks.1 never changed, as hashes before and after each phase show."
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
    assert setup.startswith("efficientnet_lite0 is fine-tuned from pretrained weights on 150 images of toy. ")
    assert accuracy == "No validation image has been scored yet: no epoch is finished."
    assert cost == "Nothing has been trained yet."


def test_only_a_prefix_counts_as_never_trained(make_run, tmp_path):
    workdir = make_run(tmp_path)
    assert never_trained(RunFiles.from_workdir(workdir)) == ["stem", "blocks.1"]
    path = workdir / "certificates" / "02-top.json"
    content = json.loads(path.read_text())
    content["spans"][0]["trained"]["blocks"] = ["stem", "head"]
    path.write_text(json.dumps(content))
    assert never_trained(RunFiles.from_workdir(workdir)) == []
