"""Small studies that are run: a killed study ends with the same table as an undisturbed one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.cli import main
from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.models import create_model
from transfer_jax.report.progress import Silent
from transfer_jax.runs import fit
from transfer_jax.storage import workdir_files
from transfer_jax.studies.executors import starter
from transfer_jax.studies.presets import make_study
from transfer_jax.studies.runner import run_study, write_analysis
from transfer_jax.studies.study import Study, create_study_folder
from transfer_jax.studies.table import TIMES, read_table
from transfer_jax.studies.worker import run_worker

SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=3, learning_rate=0.01),
        Phase(name="top", train="top(1)", epochs=2, learning_rate=1e-3),
    )
)


@pytest.fixture(scope="module")
def config(image_folder) -> TrainConfig:
    return TrainConfig(
        images=str(image_folder),
        model="vit_nano_patch8_32",
        weights="none",
        schedule=SCHEDULE,
        batch_size=12,
        checkpoint_seconds=0.0,
    )


@pytest.fixture(scope="module")
def study(config) -> Study:
    """Four trials: the head alone, and the head with the last block."""
    return make_study("unfreeze_depth", config, range(2), levels=("1",))


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    run_study(study, folder, starter("local", 1, folder, {}), Silent())
    return folder


def without_times(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_table(folder)]


def test_a_study_writes_a_table_an_analysis_and_its_runs(undisturbed, study):
    rows = read_table(undisturbed)
    assert [row["trial"] for row in rows] == [trial.name for trial in study.trials]
    for row in rows:
        assert row["status"] == "finished"
        assert row["overfit_gap"] == pytest.approx(row["train_accuracy"] - row["accuracy"])
        assert (row["held_out_images"], row["training_images"]) == (12, 36)
        assert 0 < row["operations"] < row["operations_uncached"]
        assert 0 <= row["ece"] <= 1
    heads, tops = rows[:2], rows[2:]
    features = create_model("vit_nano_patch8_32", 3, abstract_backbone=True).backbone.features
    assert {row["trainable_parameters"] for row in heads} == {features * 3 + 3}
    assert tops[0]["trainable_parameters"] > heads[0]["trainable_parameters"]
    answer = json.loads((undisturbed / "answer.json").read_text())
    assert (answer["finished"], answer["failed"], len(answer["sentences"])) == (4, [], 3)
    for trial in study.trials:
        own = undisturbed / workdir_files.TRIALS / trial.name
        assert (own / "predictions.csv").exists()
        assert not any((own / name).exists() for name in ("checkpoints", "model"))
        curve = json.loads((own / "row.json").read_text())["curve"]
        assert [(point["phase"], point["epoch"]) for point in curve] == [
            ("head", 1),
            ("head", 2),
            ("head", 3),
            ("top", 1),
            ("top", 2),
        ]
        costs = [point["operations"] for point in curve]
        assert costs == sorted(costs)
        assert costs[-1] == next(row["operations"] for row in rows if row["trial"] == trial.name)
    assert not (undisturbed / "features").exists()


@pytest.mark.extended
@pytest.mark.parametrize(
    ("task", "labels", "score"),
    [("regression", "age", "mae"), ("multi_label", "red,blue", "mean_average_precision")],
)
def test_a_study_of_other_targets_compares_their_score(config, image_folder, tmp_path, task, labels, score):
    table, folder = tmp_path / "photos.csv", tmp_path / "study"
    lines = ["path,age,red,blue"]
    for index, file in enumerate(sorted(image_folder.rglob("*.png"))):
        red, blue = (int(file.parent.name == name) for name in ("red", "blue"))
        lines.append(f"{file},{20 + 10 * red + index % 3}.5,{red},{blue}")
    table.write_text("\n".join(lines))
    config = dataclasses.replace(config, images=f"csv:{table}?label={labels}", task=task)
    study = create_study_folder(make_study("unfreeze_depth", config, range(2), levels=("1",)), folder)
    assert run_worker(folder, "only", Silent()) == 4
    answer = write_analysis(study, folder)
    assert (answer["task"], answer["metric"], answer["failed"]) == (task, score, [])
    for trial in study.trials:
        row = json.loads((trial.workdir(folder) / "row.json").read_text())
        assert row[score] == row["curve"][-1][score]
        assert ("ece" in row) == (task == "multi_label")
        sign = -1 if score == "mae" else 1
        assert row["overfit_gap"] == pytest.approx(sign * (row[f"train_{score}"] - row[score]))
    assert {level["level"] for level in answer["levels"] if level[score]["mean"] > 0} == {0, 1}
    assert answer["comparisons"][0]["test"].endswith("and t over images")
    assert (folder / "report.html").stat().st_size > 1000
    with pytest.raises(ValueError, match=f"the study sample_size, .* and the task is {task}"):
        make_study("sample_size", config, range(2))


def test_arms_share_split_order_and_head(undisturbed, study):
    """The shared phases of a seed's arms are bit-identical."""
    for seed in (0, 1):
        own = [undisturbed / workdir_files.TRIALS / t.name for t in study.trials if t.factors["seed"] == seed]
        logs = [(path / "metrics.jsonl").read_text().splitlines() for path in own]
        heads = [[x for x in map(json.loads, log) if x.get("phase") == "head"] for log in logs]
        assert heads[0] == heads[1]
        orders = [[x["order"] for x in map(json.loads, log) if x["kind"] == "train"] for log in logs]
        assert orders[0] == orders[1]


def test_a_trial_equals_a_run_of_its_config(undisturbed, study, tmp_path):
    """Even though it continues from a head that is trained for all arms, on cached features."""
    trial = study.trials[-1]
    fit(trial.config, tmp_path)
    for name in ("predictions.csv", "metrics.jsonl", "certificates/02-top.json"):
        own = undisturbed / workdir_files.TRIALS / trial.name / name
        assert own.read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.extended
def test_a_killed_study_ends_with_the_same_table(undisturbed, study, tmp_path):
    """Killed three times: in an extraction, in a phase, and after trials, which are not repeated."""
    program = (
        "import sys, pathlib; from transfer_jax.studies.runner import run_study;"
        "from transfer_jax.studies.study import read_study;"
        "from transfer_jax.studies.executors import starter;"
        "from transfer_jax.report.progress import Silent; folder = pathlib.Path(sys.argv[1]);"
        "run_study(read_study(folder), folder, starter('local', 1, folder, {}), Silent())"
    )
    create_study_folder(study, tmp_path)
    trials = tmp_path / workdir_files.TRIALS
    moments: list[Callable[[], bool]] = [
        lambda: any((tmp_path / "features").rglob("*.npy")),
        lambda: any(path.stat().st_size for path in trials.glob("*/metrics.jsonl")),
        lambda: len(list(trials.glob("*/row.json"))) >= 2,
    ]
    finished: dict[Path, int] = {}
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
        while not moment():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = {path: path.stat().st_mtime_ns for path in trials.glob("*/row.json")}
        assert finished.items() <= now.items()
        finished = now
    run_study(study, tmp_path, starter("local", 1, tmp_path, {}), Silent())
    assert without_times(tmp_path) == without_times(undisturbed)
    for trial in study.trials:
        paths = [
            folder / workdir_files.TRIALS / trial.name / "predictions.csv"
            for folder in (tmp_path, undisturbed)
        ]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_failed_trial_stops_no_other_and_is_tried_again(config, image_folder, tmp_path):
    """The image folder of one arm does not exist yet."""
    late = tmp_path / "late"
    study = make_study("unfreeze_depth", config, (0,), levels=("0",), images=(str(image_folder),))
    arms = (study.arms[0], study.arms[0].__class__(**{**vars(study.arms[0]), "name": "late"}))
    object.__setattr__(arms[1], "config", TrainConfig.from_json({**config.to_json(), "images": str(late)}))
    study = Study(**{**vars(study), "arms": arms})
    folder = tmp_path / "study"
    create_study_folder(study, folder)
    assert run_worker(folder, "me", Silent()) == 1
    error = json.loads((folder / workdir_files.TRIALS / "late-seed0" / workdir_files.TRIAL_ERROR).read_text())
    assert str(late) in error["error"]
    assert "Traceback" in error["traceback"]
    assert run_worker(folder, "me", Silent()) == 0

    late.symlink_to(image_folder)
    found = run_study(study, folder, starter("local", 1, folder, {}), Silent())
    assert found["failed"] == []
    assert found["finished"] == 2


def test_a_worker_that_dies_is_replaced_and_a_trial_that_kills_it_twice_fails(study, tmp_path):
    """The first trial crashes its worker each time; a replacement finishes the others."""
    folder, first = tmp_path, study.trials[-1].name

    class Dead:
        def __init__(self, name: str) -> None:
            own = folder / workdir_files.TRIALS / first
            own.mkdir(parents=True, exist_ok=True)
            (own / workdir_files.TRIAL_CLAIM).write_text(json.dumps({"worker": name}))

        def poll(self) -> int:
            return -9

        def stop(self) -> None: ...
        def kill(self) -> None: ...

    class Done(Dead):
        def __init__(self, name: str) -> None: ...
        def poll(self) -> int:
            return 0

    started = []

    def start(arguments, log):
        started.append(arguments)
        name = arguments[arguments.index("--name") + 1]
        return Dead(name) if len(started) <= 2 else Done(name)

    found = run_study(study, folder, start, Silent(), workers=1)
    assert [each["trial"] for each in found["failed"]] == [first]
    assert "crashed 2 times, the last time with exit code -9" in found["failed"][0]["error"]
    assert len(started) == 3

    class Broken(Done):
        def poll(self) -> int:
            return 2

    with pytest.raises(RuntimeError, match="a worker exited with code 2 before it claimed a trial"):
        run_study(study, folder, lambda arguments, log: Broken(""), Silent(), workers=1)


def test_ctrl_c_stops_all_workers(study, tmp_path):
    stopped = []

    class Busy:
        def poll(self) -> int | None:
            if not stopped:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            return 75 if self in stopped else None

        def stop(self) -> None:
            stopped.append(self)

        def kill(self) -> None:
            raise AssertionError("the worker has already saved")

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, lambda arguments, log: Busy(), Silent(), workers=2)
    assert len(stopped) == 2


@pytest.mark.extended
def test_two_workers_share_the_trials(study, undisturbed, tmp_path):
    run_study(study, tmp_path, starter("local", 2, tmp_path, {}), Silent(), workers=2)
    assert len(without_times(tmp_path)) == 4
    workers = [
        json.loads((tmp_path / workdir_files.TRIALS / trial.name / workdir_files.TRIAL_CLAIM).read_text())[
            "worker"
        ]
        for trial in study.trials
    ]
    assert len(set(workers[:2])) == len(set(workers[2:])) == 1  # One worker trains all trials of an arm.
    found, alone = ([row["accuracy"] for row in read_table(each)] for each in (tmp_path, undisturbed))
    np.testing.assert_allclose(found, alone, atol=0.1)


def test_the_command_shows_a_finished_study_at_once(undisturbed, config, tmp_path, capsys):
    """Nothing is trained: the table, the sentences and the notes are computed again."""
    file = tmp_path / "colours.py"
    names = "Augmentation, Phase, Schedule, TrainConfig"
    file.write_text(f"from transfer_jax import {names}\n\nconfig = {config!r}\n")
    before = (undisturbed / "table.parquet").read_bytes()
    command = ("study", "unfreeze_depth", str(file), "--levels", "1", "--seeds", "2")
    assert main([*command, "--workdir", str(undisturbed)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for sentence in json.loads((undisturbed / "answer.json").read_text())["sentences"]:
        assert sentence in out
    assert "from norm" in out
    assert (undisturbed / "table.parquet").read_bytes() == before
    assert main([*command[:-1], "1", "--workdir", str(undisturbed)]) == 2
    assert "lacks 0-head-only-seed1" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("--workers", "0"), "--workers must be at least 1, got 0"),
        (("--levels", "99"), "has no depth '99'"),
        (("--val-fraction", "0.99"), "val_fraction 0.99 leaves 0 training images for"),
        (("--on", "slurm", "--job", "partition"), "--job takes name=value, got 'partition'"),
    ],
)
def test_invalid_options_are_one_line_errors(image_folder, tmp_path, options, error, capsys):
    images = ("--images", str(image_folder), "--model", "efficientnet_lite_tiny", "--weights", "none")
    assert main(["study", "unfreeze_depth", *images, *options, "--workdir", str(tmp_path / "study")]) == 2
    assert error in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "study").exists()
