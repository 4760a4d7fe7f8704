"""Runs of the toy network with several labels, numbers and ordered classes."""

import json

import numpy as np
import pytest

from transfer_jax import cli
from transfer_jax.config import TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.freezing import five_steps
from transfer_jax.report.predictions import read_predictions
from transfer_jax.report.progress import Silent
from transfer_jax.runs import fit
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.weights.saved_model import SavedModel


def images_of(task: str):
    """Returns 60 noisy images, and targets that their colours decide."""
    rng = np.random.default_rng(0)
    strength = rng.random((60, 3))
    images = (rng.integers(0, 60, (60, 20, 24, 3)) + 150 * strength[:, None, None, :]).astype(np.uint8)
    if task == "multi_label":
        return from_arrays(images, (strength > 0.5).astype(int), ("red", "green", "blue"), task=task)
    if task == "regression":
        return from_arrays(images, 40 + 10 * strength[:, :2], ("warmth", "growth"), task=task)
    return from_arrays(images, np.digitize(strength[:, 0], [0.33, 0.66]), ("0", "1", "2"), task=task)


class Stop(Silent):
    """Stops a run after a number of steps of its last phase."""

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.left = 3 if task == "training top" else 10**9

    def advance(self, images: int, **values: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


@pytest.mark.parametrize("task", ["multi_label", "regression", "ordinal"])
def test_five_steps_on_cached_features_are_resumed_exactly(task, toy, tmp_path, logged):
    dataset = images_of(task)
    schedule = five_steps(
        "top(2)", views=0, head_epochs=12, epochs=3, head_learning_rate=0.05, learning_rate=0.01
    )
    settings = {
        "weights": "none",
        "batch_size": 9,
        "threads": 1,
        "checkpoint_seconds": 0.0,
        "keep_epoch": "last",
    }
    config = TrainConfig(images="memory", model=toy, schedule=schedule, **settings)
    whole = fit(config, tmp_path / "whole", dataset=dataset)
    with pytest.raises(InterruptedError):
        fit(config, tmp_path / "again", dataset=dataset, progress=Stop())
    again = fit(config, tmp_path / "again", dataset=dataset)
    assert whole.metrics == again.metrics
    assert logged(tmp_path / "whole", "train")[-1]["loss"] == logged(tmp_path / "again", "train")[-1]["loss"]
    files = [tmp_path / name / "predictions.csv" for name in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.phases[0].extracted == 60
    first, last = (logged(tmp_path / "whole", "train")[place]["loss"] for place in (0, -1))
    assert last < first
    _check_model(tmp_path / "whole", dataset, whole.metrics)
    for file in ("report.html", "curves.png"):
        assert (tmp_path / "whole" / file).stat().st_size > 1000


def _check_model(workdir, dataset, metrics):
    """Checks the saved model and the stored predictions against each other and the scores of the run."""
    saved, stored = SavedModel.describe(workdir), read_predictions(workdir / "predictions.csv")
    assert saved.task.kind == dataset.task.kind
    known = dataset.subset([dataset.names.index(name) for name in stored.names])
    np.testing.assert_array_equal(stored.labels, known.labels)
    found = predict_dataset(workdir, known)
    np.testing.assert_allclose(found, stored.values, rtol=1e-4, atol=1e-5)
    scores = saved.task.scores(found, known.labels)
    name = saved.task.objective.name
    assert scores[name] == pytest.approx(metrics[name], rel=1e-4)


def test_the_command_line_trains_on_a_table_of_numbers(toy, image_folder, tmp_path, capsys):
    files = sorted(image_folder.rglob("*.png"))
    table = tmp_path / "table.csv"
    lines = [f"{file},{20 + 10 * (file.parent.name == 'red')}.5" for file in files]
    table.write_text("\n".join(["path,age", *lines]))
    options = [
        "--model",
        toy,
        "--weights",
        "none",
        "--task",
        "regression",
        "--batch-size",
        "12",
        "--threads",
        "1",
    ]
    source = f"csv:{table}?label=age"
    workdir = str(tmp_path / "run")
    assert cli.main(["train", "--images", source, "--workdir", workdir, "--no-check", *options]) == 0
    assert "MAE" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/model/model.json").read_text())["task"]["names"] == ["age"]
    assert cli.main(["evaluate", workdir, "--images", source]) == 0
    assert "(none trained on)" not in capsys.readouterr().out
    assert cli.main(["predict", workdir, str(files[0])]) == 0
    assert files[0].name in capsys.readouterr().out
