import json

import numpy as np
import pytest

from transfer_jax.extras import MissingExtraError
from transfer_jax.report import prediction_files
from transfer_jax.report.prediction_files import (
    PredictionBatch,
    write_prediction_batches,
    write_predictions,
)
from transfer_jax.report.predictions import read_predictions
from transfer_jax.tasks import MultiLabel, SingleLabel
from transfer_jax.tasks.top_predictions import TopPredictions

CLASSES = ("ant", "b,\nee", "caf\udce9", "dog", "emu", "fly", "gnu")
STORED = (*CLASSES[:2], r"caf\udce9", *CLASSES[3:])
RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(7) / 4, 23)
PROBABILITIES[3] = [0, 0, 0, 0, 0, 1 - 1e-30, 1e-30]
LABELS = RNG.integers(0, 7, 23).astype(np.int32)
LABELS[3] = 6
NAMES = [f"{place}\udcff.jpg" for place in range(23)]


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(prediction_files, "_ROWS", 5)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_top_predictions_are_read_as_written(tmp_path, suffix, small_batches):
    path, top = tmp_path / f"predictions.{suffix}", TopPredictions.of(PROBABILITIES, LABELS)
    write_predictions(path, NAMES, SingleLabel(CLASSES), top, LABELS)
    with pytest.raises(ValueError, match=r"classes\.json is missing, which has the classes of predictions"):
        read_predictions(path)
    (tmp_path / "classes.json").write_text(json.dumps(STORED))
    found = read_predictions(path)
    assert found.names == tuple(rf"{place}\udcff.jpg" for place in range(23))
    assert found.class_names == STORED
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.values.classes, top.classes)
    np.testing.assert_allclose(found.values.probabilities, top.probabilities, rtol=1e-5)
    np.testing.assert_allclose(found.values.log_truth, top.log_truth, rtol=1e-4, atol=1e-5)
    task = SingleLabel(CLASSES)
    scores, known = (task.scores(each, LABELS) for each in (found.values, top))
    assert scores.pop("log_loss") == pytest.approx(known.pop("log_loss"), rel=1e-4)
    assert scores == known
    np.testing.assert_array_equal(found.right, PROBABILITIES.argmax(-1) == LABELS)
    np.testing.assert_allclose(found.truth, PROBABILITIES[np.arange(23), LABELS], rtol=1e-4)
    with pytest.raises(ValueError, match="the most probable classes of each image, not all"):
        _ = found.probabilities


def test_all_predictions_in_parquet_are_read_as_written(tmp_path, small_batches):
    several = np.eye(7, dtype=np.uint8)[LABELS]
    for task, labels in ((SingleLabel(CLASSES), LABELS), (MultiLabel(CLASSES), several)):
        write_predictions(tmp_path / "p.parquet", NAMES, task, PROBABILITIES, labels)
        found = read_predictions(tmp_path / "p.parquet")
        assert found.task == task.renamed(STORED)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.probabilities, PROBABILITIES, atol=1e-6)
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"p\.parquet is damaged"):
        read_predictions(tmp_path / "p.parquet")


def test_batches_make_the_same_file_as_all_predictions(tmp_path, small_batches):
    task = SingleLabel(CLASSES)
    write_predictions(tmp_path / "whole.csv", NAMES, task, PROBABILITIES, LABELS)
    batches = (
        PredictionBatch(NAMES[rows], PROBABILITIES[rows], LABELS[rows])
        for rows in (slice(0, 7), slice(7, 8), slice(8, 23))
    )
    write_prediction_batches(tmp_path / "batches.csv", task, batches)
    assert (tmp_path / "batches.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_errors_are_those_of_their_images(tmp_path, small_batches):
    import pyarrow.parquet as pq

    errors = {7: "the file is empty"}
    for suffix in ("json", "parquet"):
        path = tmp_path / f"p.{suffix}"
        write_predictions(path, NAMES, SingleLabel(CLASSES), PROBABILITIES, errors=errors)
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["error"] for row in rows] == [errors.get(place) for place in range(23)]
    assert [place for place, row in enumerate(rows) if row["predicted"] is None] == [7]
    for row, other in zip(rows, json.loads((tmp_path / "p.json").read_text()), strict=True):
        numbers = [name for name in row if name.startswith("p(") and row["error"] is None]
        assert [row[name] for name in numbers] == pytest.approx([other[name] for name in numbers], abs=1e-6)
        assert {**row, **dict.fromkeys(numbers)} == {**other, **dict.fromkeys(numbers)}


def test_parquet_needs_a_package(tmp_path, monkeypatch):
    monkeypatch.setattr("transfer_jax.extras.is_installed", lambda name: False)
    with pytest.raises(MissingExtraError, match="pyarrow is not installed"):
        write_predictions(tmp_path / "p.parquet", NAMES, SingleLabel(CLASSES), PROBABILITIES)
    assert not [*tmp_path.iterdir()]
