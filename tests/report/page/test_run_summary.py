import json

from scipy.stats import binomtest

from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_summary import never_trained, run_summary


def test_they_say_what_the_files_say(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    asked, answered, took = run_summary(run)
    assert asked == (
        "Asked was how well efficientnet_lite0, from pretrained weights, tells the 3 classes of toy apart "
        "after training on 150 images: head for 6 epochs, then top(2) for 4 epochs."
    )
    scores = run.scores
    right = sum(scores["confusion"][index][index] for index in range(3))
    low, high = binomtest(right, scores["images"]).proportion_ci(0.95, method="wilson")
    commonest = max(map(sum, scores["confusion"]))
    assert (
        f"Of {scores['images']} held-out images it names {right} rightly, {scores['accuracy']:.1%}"
        in answered
    )
    assert f"(95% interval {low:.1%} to {high:.1%})" in answered
    assert f"would give {commonest / scores['images']:.1%}" in answered
    assert took == (
        "It trained at most 1,251 of 2,151 parameters (58.2%), took 22 s, 54.5% of it in steps and never "
        "changed the 2 blocks from stem to blocks.1, as hashes before and after each phase prove."
    )


def test_no_proof_is_claimed_where_hashes_differ(make_run, tmp_path):
    workdir = make_run(tmp_path)
    path = workdir / "certificates" / "01-head.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32, 1))
    assert "hashes" not in run_summary(RunFiles.from_workdir(workdir))[2]


def test_a_run_under_way_says_so(make_run, tmp_path):
    _, answered, _ = run_summary(RunFiles.from_workdir(make_run(tmp_path, epochs=8)))
    assert answered.startswith("So far (after epoch 2 of 4 of phase top): of ")


def test_a_run_that_has_just_begun_has_no_answer(make_run, tmp_path):
    workdir = make_run(tmp_path, epochs=0)
    (workdir / "goodput.json").unlink()
    asked, answered, took = run_summary(RunFiles.from_workdir(workdir))
    assert "tells the classes of toy apart" in asked
    assert answered == "There is no answer yet: no epoch is over, and no held-out image has been scored."
    assert took == "Nothing has been trained yet."


def test_only_a_prefix_counts_as_never_trained(make_run, tmp_path):
    workdir = make_run(tmp_path)
    assert never_trained(RunFiles.from_workdir(workdir)) == ["stem", "blocks.1"]
    path = workdir / "certificates" / "02-top.json"
    content = json.loads(path.read_text())
    content["spans"][0]["trained"]["blocks"] = ["stem", "head"]
    path.write_text(json.dumps(content))
    assert never_trained(RunFiles.from_workdir(workdir)) == []
