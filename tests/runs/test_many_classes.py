"""Runs with many classes: their scores, predictions, checkpoints and reports."""

import json

import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, from_arrays
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.report.page.elements import Text
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_page import run_page
from transfer_jax.report.page.run_summary import run_summary
from transfer_jax.report.predictions import read_predictions
from transfer_jax.runs import Result, fit
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.tasks.top_predictions import TopPredictions

CLASSES = 53


@pytest.fixture(scope="module")
def many() -> ImageDataset:
    """Two images of each class, and one image of the last class."""
    rng = np.random.default_rng(0)
    labels = np.arange(2 * CLASSES - 1) % CLASSES
    return from_arrays(
        rng.integers(0, 255, (len(labels), 16, 16, 3), np.uint8),
        labels,
        [f"class {place:02}" for place in range(CLASSES)],
    )


@pytest.fixture
def train(toy, many, tmp_path, monkeypatch):
    """Returns a function that trains a head as if the set were large."""
    monkeypatch.setattr("transfer_jax.training.phase_trainer.keeps_all", lambda examples, classes: False)

    def run(**settings) -> Result:
        phase = Phase(name="head", train="head", epochs=1, learning_rate=0.1, cache="off")
        options = {"batch_size": 12, "threads": 1, "val_fraction": 0.5, **settings}
        config = TrainConfig(images="many", model=toy, weights="none", schedule=Schedule((phase,)), **options)
        return fit(config, tmp_path, dataset=many)

    return run


def test_scores_of_classes_are_in_one_file(train, tmp_path):
    result = train()
    assert result.metrics["classes"] == CLASSES
    assert result.metrics["unevaluated_classes"] == 1
    assert {"per_class", "confusion"}.isdisjoint(result.metrics)
    assert "top5_accuracy" in result.metrics
    assert result.class_scores["class 52"] == dict.fromkeys(("precision", "recall", "f1")) | {"images": 0}
    assert result.class_scores["class 00"]["images"] == 1
    records = [*(tmp_path / "checkpoints" / "records").glob("*.json")]
    assert records
    for path in (*records, tmp_path / "phases.json", tmp_path / "metrics.jsonl"):
        assert "class 07" not in path.read_text()
    found = read_predictions(tmp_path / "predictions.parquet")
    assert len(found.names) == CLASSES - 1
    assert result.metrics["accuracy"] == found.right.mean()
    run = RunFiles.from_workdir(tmp_path)
    assert "Always predicting the most common class" in " ".join(run_summary(run))
    assert "53 classes" in run_summary(run)[0]
    (section,) = (section for section in run_page(run).sections if section.title == "Classes")
    text = section.parts[0]
    assert isinstance(text, Text)
    assert text.paragraphs[0].startswith("1 class has no validation image (class 52)")
    for name in ("confusion.png", "report.html", "mistakes/mistakes.json"):
        assert (tmp_path / name).is_file()


@pytest.mark.extended
def test_all_predictions_are_written_by_choice(train, many, tmp_path):
    (tmp_path / "predictions.parquet").write_bytes(b"of a stopped session")
    train(prediction_columns="all", prediction_format="csv")
    found = read_predictions(tmp_path / "predictions.csv")
    assert not (tmp_path / "predictions.parquet").exists()
    assert found.values.shape == (CLASSES - 1, CLASSES)
    names = {name: row for row, name in enumerate(many.names)}
    rows = [names[name] for name in found.names]
    np.testing.assert_array_equal(found.labels, many.labels[rows])
    np.testing.assert_allclose(found.values, predict_dataset(tmp_path, many)[rows], atol=1e-5)


@pytest.mark.extended
def test_top_predictions_of_small_sets_are_written_by_choice(train, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfer_jax.runs.run_predictions.is_installed", lambda name: False)
        train(prediction_columns="top")
    found = read_predictions(tmp_path / "predictions.csv")
    assert isinstance(found.values, TopPredictions)
    assert len(json.loads((tmp_path / "classes.json").read_bytes())) == CLASSES
