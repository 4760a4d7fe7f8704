"""The epoch that a phase keeps, with scripted scores of the validation images."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.freezing.controllers import controller
from transfer_jax.report.progress import Silent
from transfer_jax.runs import Result, fit
from transfer_jax.runs.best_epoch import BestEpoch
from transfer_jax.runs.scoring import Scored

VALUES = {
    "one": (9.0, 3.0, 1.0, 2.0),
    "two": (1.0, 2.0, 1.5, 4.0, 5.0),
    "unclear": (1.0, 1.5, 0.9, 1.2),
    "clear": (1.0, 0.7, 0.75, 0.9),
    "last": (9.0, 1.0, 2.0, 1.5),
    "more_right": (1.0, 0.7, 0.6, 1.1),
}
"""The log loss of each phase at its start and after each epoch: `one` and `clear` keep their second."""
ERRORS = {
    "unclear": (0, 0, 0.06, 0),
    "clear": (0, 0.2, 0.1, 0),
    "last": (0, 0.3, 0, 0),
    "more_right": (0, 0.5, 0.5, 0.5),
}
"""The standard errors of the gains; 0 in other phases."""
RIGHT = {"unclear": (0.5, 0.5, 0.6, 0.6), "more_right": (0.5, 0.75, 0.6, 0.9)}
RIGHT_ERROR = 0.1
"""The accuracies, and the standard error of their gains; 0.5 in other phases: no gain."""
ONE = Phase(name="one", train="head", epochs=3, learning_rate=0.05, shape="constant")
UNCLEAR, CLEAR = (dataclasses.replace(ONE, name=name) for name in ("unclear", "clear"))
TWO = Phase(name="two", train="top(1)", epochs=4, learning_rate=0.01, norm="train", patience=3)


class Stop(Silent):
    """Stops a run after some steps of a phase."""

    def __init__(self, phase: str, steps: int) -> None:
        self.task, self.left, self.running = f"training {phase}", steps, False

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.running = task == self.task

    def advance(self, images: int, **values: float) -> None:
        self.left -= self.running
        if self.left < 0:
            raise InterruptedError


@pytest.fixture(scope="module", autouse=True)
def scripted() -> Iterator[None]:
    offer, is_earlier = BestEpoch.offer, BestEpoch.is_earlier

    def script(best: BestEpoch, epoch: int, scored: Scored) -> Scored:
        name = best._run.config.schedule.phases[best._position.phase].name
        value, error = VALUES[name][epoch], ERRORS.get(name, [0] * 9)[epoch]
        right = RIGHT.get(name, [0.5] * 9)[epoch]
        spread = RIGHT_ERROR * (epoch > 0)
        groups = [[value - error, value + error], [right - spread, right + spread]]
        return Scored(
            scored.predictions, {**scored.scores, "log_loss": value, "accuracy": right, "groups": groups}
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            BestEpoch, "offer", lambda self, x, n, scored: offer(self, x, n, script(self, n, scored))
        )
        patch.setattr(
            BestEpoch, "is_earlier", lambda self, n, scored: is_earlier(self, n, script(self, n, scored))
        )
        patch.setattr(BestEpoch, "_values_without_groups", lambda _, scored: scored.scores["groups"])
        yield


@pytest.fixture(scope="module")
def config(image_folder: Path, toy: str) -> TrainConfig:
    settings = {"batch_size": 12, "threads": 1, "checkpoint_seconds": 0.0, "keep_epoch": "best"}
    schedule = Schedule((ONE, UNCLEAR, TWO))
    folder = str(image_folder)
    return TrainConfig(
        images=folder, model=toy, weights="none", schedule=schedule, test_fraction=0.25, **settings
    )


@pytest.fixture(scope="module")
def result(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return fit(config, tmp_path_factory.mktemp("best") / "run")


def model(workdir: Path) -> dict[str, np.ndarray]:
    (path,) = (workdir / "model").glob("*.safetensors")
    return load_file(path)


def same_models(one: Path, two: Path) -> bool:
    first, second = model(one), model(two)
    return first.keys() == second.keys() and all(np.array_equal(first[path], second[path]) for path in first)


def test_the_best_epoch_is_kept_and_a_phase_without_one_is_undone(config, result, tmp_path):
    one, unclear, two = result.phases
    assert (one.kept_epoch, one.epochs, one.kept_value, one.start_value) == (2, 3, 1.0, None)
    assert (two.kept_epoch, two.epochs, two.kept_value, two.start_value) == (0, 3, 1.0, 1.0)
    assert two.undone
    assert unclear.undone
    assert (unclear.gain_epoch, unclear.gain, unclear.gain_error) == (2, *map(pytest.approx, (0.1, 0.06)))
    found = "phase 'unclear' is undone: epoch 2 of 3 is the best one, but its gains of 0.1 ± 0.06 in log loss"
    assert unclear.choice == f"{found} and 0.1 ± 0.1 in accuracy are not above two standard errors"
    assert "phase 'two' is undone: none of its 3 epochs has a better log loss than 1 before it" in two.choice
    assert "it ended early, after 3 of 4 epochs" in two.choice
    assert one.choice.startswith("phase 'one' keeps epoch 2 of 3: log loss 1, ")
    assert one.choice.endswith(" after the last epoch (a gain of 1 ± 0)")
    assert two.metrics == one.metrics
    schedule = Schedule((dataclasses.replace(ONE, epochs=2),))
    alone = dataclasses.replace(config, schedule=schedule, keep_epoch="last")
    fit(alone, tmp_path / "run")
    assert same_models(result.workdir, tmp_path / "run")


def test_the_files_say_what_is_kept(result, logged):
    assert [(x["phase"], x["epoch"]) for x in logged(result.workdir, "kept")] == [
        ("one", 2),
        ("unclear", 0),
        ("two", 0),
    ]
    records = sorted((result.workdir / "certificates").glob("*.json"))
    kept = [json.loads(path.read_text())["kept"] for path in records]
    assert [each["epoch"] for each in kept] == [2, 0, 0]
    spans = [span for path in records for span in json.loads(path.read_text())["spans"]]
    assert all(span["frozen"]["sha256_before"] == span["frozen"]["sha256_after"] for span in spans)
    report = (result.workdir / "report.html").read_text()
    assert "Phase &#39;two&#39; is undone" in report
    assert "Phase &#39;unclear&#39; is undone: epoch 2 of 3 is the best one" in report
    gains = [phase["gain"] for phase in json.loads((result.workdir / "phases.json").read_text())["phases"]]
    assert gains == [1.0, pytest.approx(0.1), None]
    assert "Test images" in report


def test_test_images_are_scored_once(result, logged):
    (line,) = logged(result.workdir, "test")
    assert line["images"] == result.test_metrics["images"] == 12
    assert result.phases[0].test_metrics == {}
    rows = (result.workdir / "test_predictions.csv").read_text().splitlines()
    assert len(rows) == 13


@pytest.mark.extended
@pytest.mark.parametrize(("phase", "steps"), [("one", 5), ("unclear", 5), ("two", 4)])
def test_a_resumed_run_keeps_the_same(config, result, tmp_path, phase, steps):
    with pytest.raises(InterruptedError):
        fit(config, tmp_path / "run", progress=Stop(phase, steps))
    again = fit(config, tmp_path / "run")
    assert same_models(result.workdir, tmp_path / "run")
    for one, two in zip(result.phases, again.phases, strict=True):
        assert (one.metrics, one.test_metrics, one.choice) == (two.metrics, two.test_metrics, two.choice)


@pytest.mark.extended
def test_the_first_phase_keeps_its_last_epoch_unless_an_earlier_one_is_clearly_better(config, tmp_path):
    schedule = Schedule((dataclasses.replace(ONE, name="last"),))
    only = dataclasses.replace(config, schedule=schedule, test_fraction=0.0)
    with pytest.raises(InterruptedError):
        fit(only, tmp_path / "best", progress=Stop("last", 5))
    (phase,) = fit(only, tmp_path / "best").phases
    assert (phase.kept_epoch, phase.kept_value, phase.gain_epoch, phase.gain) == (3, 1.5, 1, 0.5)
    found = "phase 'last' keeps its last epoch, 3: log loss 1.5; epoch 1 is better, but its gain of 0.5"
    assert phase.choice == f"{found} ± 0.3 is not above two standard errors"
    fit(dataclasses.replace(only, keep_epoch="last"), tmp_path / "last")
    assert same_models(tmp_path / "best", tmp_path / "last")


@pytest.mark.extended
def test_the_best_of_the_epochs_with_a_clear_gain(config, tmp_path):
    schedule = Schedule((ONE, dataclasses.replace(CLEAR, patience=2)))
    only = dataclasses.replace(config, schedule=schedule, test_fraction=0.0)
    phase = fit(only, tmp_path / "best").phases[1]
    assert (phase.kept_epoch, phase.epochs, phase.gain_epoch) == (2, 3, 2)
    found = "keeps epoch 2 of 3: log loss 0.75, 1 before the phase (a gain of 0.25 ± 0.1 in log loss and"
    assert found in phase.choice
    with pytest.raises(InterruptedError):
        fit(only, tmp_path / "stopped", progress=Stop("clear", 8))
    fit(only, tmp_path / "stopped")
    assert same_models(tmp_path / "best", tmp_path / "stopped")
    shorter = dataclasses.replace(CLEAR, epochs=2, keep_epoch="last")
    fit(dataclasses.replace(only, schedule=Schedule((ONE, shorter))), tmp_path / "last")
    assert same_models(tmp_path / "best", tmp_path / "last")


@pytest.mark.extended
def test_a_run_that_resumes_with_another_score_compares_the_epochs_to_come(config, tmp_path):
    only = dataclasses.replace(config, schedule=Schedule((ONE,)), test_fraction=0.0)
    with pytest.raises(InterruptedError):
        fit(only, tmp_path / "run", progress=Stop("one", 8))
    (phase,) = fit(dataclasses.replace(only, keep_metric="accuracy"), tmp_path / "run", force=True).phases
    assert (phase.kept_by, phase.kept_epoch) == ("accuracy", 3)


@pytest.mark.extended
def test_moving_averages_of_the_best_epoch(config, tmp_path):
    averaged = dataclasses.replace(
        config, ema_decay=0.5, schedule=Schedule((ONE,)), test_fraction=0.0, eval_every=1
    )
    fit(averaged, tmp_path / "best")
    alone = dataclasses.replace(
        averaged, schedule=Schedule((dataclasses.replace(ONE, epochs=2),)), keep_epoch="last"
    )
    fit(alone, tmp_path / "alone")
    assert same_models(tmp_path / "best", tmp_path / "alone")


@pytest.mark.extended
def test_the_best_epoch_at_another_frozen_depth(config, tmp_path, logged: Callable[[Path, str], list[dict]]):
    @controller
    def freezes_in_the_third_epoch(history):
        return 3 if history[-1].epoch >= 2 else 0

    phase = dataclasses.replace(
        ONE, train="top(2)", controller="freezes_in_the_third_epoch", learning_rate=1e-3
    )
    only = dataclasses.replace(config, schedule=Schedule((phase,)), test_fraction=0.0)
    result = fit(only, tmp_path / "best")
    assert [line["frozen_depth"] for line in logged(tmp_path / "best", "train")] == [0, 0, 3]
    assert result.phases[0].kept_epoch == 2
    second = logged(tmp_path / "best", "evaluation")[1]
    assert {name: second[name] for name in result.metrics} == result.metrics
    with pytest.raises(InterruptedError):
        fit(only, tmp_path / "stopped", progress=Stop("one", 7))
    fit(only, tmp_path / "stopped")
    assert same_models(tmp_path / "best", tmp_path / "stopped")


def test_an_unknown_metric_is_an_error_before_anything_is_written(config, tmp_path):
    with pytest.raises(ValueError, match=r"keep_metric must be one of .*log_loss.*, got 'luck'"):
        fit(dataclasses.replace(config, keep_metric="luck"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_clear_gain_in_accuracy_is_enough_unless_another_score_is_chosen(config, tmp_path):
    phase = dataclasses.replace(ONE, name="more_right")
    only = dataclasses.replace(config, schedule=Schedule((ONE, phase)), test_fraction=0.0)
    found = fit(only, tmp_path / "best").phases[1]
    assert (found.kept_epoch, found.headline, found.kept_value) == (1, "accuracy", 0.7)
    assert "(a gain of 0.3 ± 0.5 in log loss and 0.25 ± 0.1 in accuracy)" in found.choice
    chosen = fit(dataclasses.replace(only, keep_metric="log_loss"), tmp_path / "chosen").phases[1]
    assert chosen.undone
    assert chosen.headline == ""
