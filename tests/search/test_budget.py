import dataclasses
import json
import signal
import time

import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.report.page import is_search
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.search.budget import arms as arms_module
from transfer_jax.search.budget import clock as clock_module
from transfer_jax.search.budget import search, train_within
from transfer_jax.search.budget.arms import Arm, arms_of, epochs_until
from transfer_jax.search.budget.clock import Clock, OutOfTimeError, budget_seconds, time_text
from transfer_jax.search.budget.search_record import SearchRecord, TrialRecord
from transfer_jax.search.fine_tune import fine_tune
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.saved_model import SavedModel

LOSS = SingleLabel.objective


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("600", 600), (42.5, 42.5), ("1.5m", 90)],
)
def test_times(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "ten", "10 minutes", "-5m", "m"])
def test_invalid_times(text):
    with pytest.raises(ValueError, match="such as 90s, 10m or 1h30m, got"):
        budget_seconds(text)


@pytest.mark.parametrize(("seconds", "text"), [(45.4, "45 s"), (200, "3:20 min"), (3900, "1:05 h")])
def test_time_texts(seconds, text):
    assert time_text(seconds) == text


def test_the_clock_counts_what_earlier_processes_used():
    clock = Clock(100, used=70)
    assert 69 < clock.used() < 80
    assert clock.left(reserve=10) < 20.1
    assert clock.left(reserve=60) == 0


def test_work_is_stopped_when_its_time_is_over():
    with pytest.raises(OutOfTimeError), Clock(100).stop_after(0.05):
        time.sleep(60)


def test_ctrl_c_is_not_the_end_of_the_time():
    with pytest.raises(KeyboardInterrupt), Clock(100).stop_after(60):
        signal.raise_signal(signal.SIGINT)


def test_watched_work_is_recorded_until_it_ends(monkeypatch):
    monkeypatch.setattr(clock_module, "_LEAST_TICK", 0.01)
    ticks, over = [], []
    with Clock(1).watched(lambda: ticks.append(1), lambda: over.append(1)):
        while len(ticks) < 3:
            time.sleep(0.01)
    count = len(ticks)
    time.sleep(0.05)
    assert len(ticks) == count
    assert not over


def test_a_process_ends_when_its_work_cannot_be_stopped(monkeypatch):
    codes, over = [], []
    monkeypatch.setattr(clock_module.os, "_exit", codes.append)
    with Clock(0.05, used=1.0, of_process=True).watched(lambda: None, lambda: over.append(1)):
        while not codes:
            time.sleep(0.01)
    assert set(codes) == {0}
    assert over


def test_a_rung_begins_with_the_phases_of_the_one_before():
    arm = Arm(network="toy", unfreeze="top(2)", learning_rate=1e-4)
    first, second = arm.schedule(0).phases, arm.schedule(1).phases
    assert second[: len(first)] == first
    assert sum(phase.epochs for phase in second[1:]) == epochs_until(1) == 12


@pytest.mark.parametrize("blocks", [3, 4, 18, 50])
def test_arms_differ_and_leave_a_block_frozen(blocks):
    arms = arms_of("toy", blocks)
    assert len({arm.name for arm in arms}) == len(arms) >= 2
    assert all(1 <= int(arm.unfreeze[4:-1]) < blocks for arm in arms)


def trial(name, loss, images=50, **fields):
    return TrialRecord(
        name=name,
        kind="heads",
        network="toy",
        text="",
        images=100,
        validation_images=images,
        status="finished",
        scores={LOSS.name: loss},
        **fields,
    )


def test_more_validation_images_are_preferred_then_the_better_score(tmp_path):
    record = SearchRecord(budget=10, trials=[trial("a", 0.1, images=20), trial("b", 0.5), trial("c", 0.6)])
    assert record.is_better(record.trials[0], LOSS)
    record.best = "a"
    assert record.is_better(record.trials[1], LOSS)
    record.best = "b"
    assert not record.is_better(record.trials[2], LOSS)
    assert not record.is_better(record.trials[0], LOSS)
    record.write(tmp_path)
    assert SearchRecord.read(tmp_path) == record


def test_a_damaged_record_is_an_error(tmp_path):
    (tmp_path / "search.json").write_text('{"budget": 10}')
    with pytest.raises(ValueError, match="is damaged"):
        SearchRecord.read(tmp_path)


@pytest.fixture(scope="module")
def small_search(toy, image_folder, tmp_path_factory):
    """A search that ends because nothing is left to try; its two sessions share one workdir."""
    workdir = tmp_path_factory.mktemp("search")
    config = TrainConfig(images=str(image_folder), model=toy, weights="none", threads=1, batch_size=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MOST_RUNGS", 2)
        patch.setattr(arms_module, "HEAD_EPOCHS", 2)
        patch.setattr(arms_module, "FIRST_EPOCHS", 1)
        patch.setattr(arms_module, "VIEWS", 1)
        patch.setattr(search, "arms_of", lambda name, blocks: arms_of(name, blocks)[:2])
        given = ("images", "model", "weights", "threads", "batch_size")
        record = train_within(config, "1h", workdir, given=given)
        with pytest.raises(ValueError, match=r"has used \d+ s of its budget of 3600 s; its model is ready"):
            train_within(config, "1h", workdir, given=given)
    return record, workdir


def test_a_search_leaves_a_model_scores_and_a_report(small_search, image_folder, toy_images):
    record, workdir = small_search
    assert {each.status for each in record.trials} == {"finished"}
    assert [each.kind for each in record.trials][:3] == ["heads", "phases", "phases"]
    best = record.trial(record.best)
    assert best.scores[LOSS.name] == min(each.scores[LOSS.name] for each in record.trials)
    assert SavedModel.describe(workdir).model == "toy"
    assert predict_dataset(workdir, toy_images).shape == (48, 3)
    assert record.test["images"] == 10
    assert record.optimism is not None
    assert is_search(workdir)
    report = (workdir / "report.html").read_text()
    assert "The best of " in report
    assert "10 test images" in report


def test_a_rung_continues_the_one_before(small_search):
    record, workdir = small_search
    later = [each for each in record.trials if each.rung == 1]
    for each in later:
        lines = (workdir / "trials" / each.name / "metrics.jsonl").read_text().splitlines()
        phases = [json.loads(line)["phase"] for line in lines if json.loads(line)["kind"] == "train"]
        assert list(dict.fromkeys(phases)) == ["head", "top_1", "top_2"]
        config = json.loads((workdir / "trials" / each.name / "config.json").read_text())
        assert len(config["schedule"]["phases"]) == 3


def test_no_trial_sees_test_images(small_search):
    record, workdir = small_search
    for each in record.trials:
        assert each.images + each.validation_images == 38
        assert not (workdir / "trials" / each.name / "test_predictions.csv").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"given": ("schedule",)}, "sets schedule itself; leave --schedule or --budget out"),
        ({"budget": "soon"}, "budget must be a time such as"),
        ({"budget": "1ms"}, "budget must be a time such as"),
    ],
)
def test_invalid_options(settings, message, image_folder, toy, tmp_path):
    config = TrainConfig(images=str(image_folder), model=toy, weights="none")
    with pytest.raises(ValueError, match=message):
        train_within(config, workdir=tmp_path, **{"budget": "1m", "given": (), **settings})


def test_a_budget_takes_names_of_networks(tmp_path):
    with pytest.raises(ValueError, match="needs names of networks; register_model"):
        fine_tune(object(), "photos", workdir=tmp_path, budget="1m")
    with pytest.raises(ValueError, match="no_such_network"):
        fine_tune(["no_such_network"], "photos", workdir=tmp_path, budget="1m")


def test_the_folder_of_a_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is the folder of a training run"):
        train_within(TrainConfig(images="photos"), "1m", tmp_path, given=())


def test_a_budget_that_is_too_short_says_so(image_folder, toy, tmp_path):
    config = TrainConfig(images=str(image_folder), model=toy, weights="none")
    with pytest.raises(ValueError, match=r"too short for a first model of .* give more time"):
        train_within(config, 0.01, tmp_path, given=("model", "weights"))


def test_optimism_of_models_that_only_guess(tmp_path):
    """Among many equal models, the best one on some images is better there than elsewhere."""
    from transfer_jax.report.predictions import write_predictions
    from transfer_jax.search.budget.optimism import selection_optimism

    task, rng, folders = SingleLabel(("cat", "dog")), np.random.default_rng(0), []
    labels = rng.integers(0, 2, 200)
    names = [f"{index}.png" for index in range(200)]
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        guesses = np.eye(2)[rng.integers(0, 2, 200)]
        write_predictions(folder / "predictions.csv", names, task, guesses, labels=labels)
        folders.append(folder)
    found = selection_optimism(folders, task)
    assert found is not None
    gain, error = found
    assert 0.02 < gain < 0.15
    assert error > 0
    assert selection_optimism(folders[:1], task) is None


def test_records_are_plain_json():
    assert json.dumps(dataclasses.asdict(SearchRecord(budget=1.0, trials=[trial("a", 0.1)])))
