import csv
import json

import numpy as np
import pytest

from transfer_jax.report.predictions import read_predictions, write_predictions
from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel

NAMES = ["a/1.png", 'b, "2".png', "ü.png"]
CLASSES = ("ant", "bee")
PROBABILITIES = np.array([[0.75, 0.25], [0.1234567, 0.8765433], [0.5, 0.5]])
LABELS = np.array([1, 1, 0])


@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_row_is_an_image(tmp_path, suffix, labels):
    path = tmp_path / f"predictions.{suffix}"
    write_predictions(path, NAMES, SingleLabel(CLASSES), PROBABILITIES, labels)
    text = path.read_text()
    rows = json.loads(text) if suffix == "json" else [*csv.DictReader(text.splitlines())]
    assert [row["image"] for row in rows] == NAMES
    assert [row["predicted"] for row in rows] == ["ant", "bee", "ant"]
    assert [row.get("label") for row in rows] == ([None] * 3 if labels is None else ["bee", "bee", "ant"])
    assert [[float(row["p(ant)"]), float(row["p(bee)"])] for row in rows] == PROBABILITIES.round(6).tolist()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "classes", [CLASSES, ("=1+1", "p(x)"), (" ", "  "), ("a\r\nb", "a\rb"), ("A", "a"), ("x" * 300, ';"\t')]
)
def test_read_again(tmp_path, classes):
    write_predictions(tmp_path / "predictions.csv", NAMES, SingleLabel(classes), PROBABILITIES, LABELS)
    found = read_predictions(tmp_path / "predictions.csv")
    assert (found.names, found.class_names) == (tuple(NAMES), classes)
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.probabilities, PROBABILITIES.round(6))


@pytest.mark.parametrize(
    ("task", "labels", "columns"),
    [
        (
            MultiLabel(CLASSES, (0.3, 0.6)),
            np.eye(2, dtype=np.uint8)[LABELS],
            ["p(ant)", "p(bee)", "y(ant)", "y(bee)"],
        ),
        (
            Regression(CLASSES, (1.0, 2.0), (3.0, 4.0)),
            np.array([[1.5, -2], [0.1, 3e6], [0, 1e-9]], np.float32),
            ["value(ant)", "value(bee)", "true(ant)", "true(bee)"],
        ),
        (Ordinal(CLASSES), LABELS, ["p(ant)", "p(bee)"]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_columns_say_which_task_it_is(tmp_path, task, labels, columns):
    write_predictions(tmp_path / "p.csv", NAMES, task, PROBABILITIES * 1.5, labels)
    assert (tmp_path / "p.csv").read_text().splitlines()[0].split(",")[3:] == columns
    found = read_predictions(tmp_path / "p.csv")
    # Ordered classes have the columns of classes; constants of the training are in no file.
    assert found.task == (SingleLabel(CLASSES) if isinstance(task, Ordinal) else type(task)(CLASSES))
    np.testing.assert_allclose(found.labels, labels, rtol=1e-6)
    assert found.labels.dtype == task.label_dtype
    np.testing.assert_allclose(found.values, PROBABILITIES * 1.5, atol=1e-6)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(path, NAMES, SingleLabel(CLASSES), PROBABILITIES)
    with pytest.raises(ValueError, match=r"p\.csv has no predictions of labelled images; its columns are"):
        read_predictions(path)
    write_predictions(path, NAMES, SingleLabel(CLASSES), PROBABILITIES, LABELS)
    path.write_text(path.read_text().replace("bee,bee", "wasp,bee"))
    with pytest.raises(ValueError, match=r"p\.csv is damaged"):
        read_predictions(path)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_names_that_are_not_utf_8_have_escapes(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    write_predictions(path, ["caf\udce9.png", *NAMES[1:]], SingleLabel(("ant\udcff", "bee")), PROBABILITIES)
    text = path.read_bytes().decode("utf-8")
    rows = json.loads(text) if suffix == "json" else [*csv.DictReader(text.splitlines())]
    assert (rows[0]["image"], rows[0]["predicted"]) == (r"caf\udce9.png", r"ant\udcff")


@pytest.mark.parametrize("suffix", ["csv", "JSON"])
@pytest.mark.parametrize("errors", [{}, {1: "the file is empty"}])
def test_bad_images_have_no_prediction(tmp_path, suffix, errors):
    path = tmp_path / f"p.{suffix}"
    write_predictions(
        path,
        NAMES,
        SingleLabel(CLASSES),
        np.where([[0], [errors != {}], [0]], np.nan, PROBABILITIES),
        errors=errors,
    )
    empty, text = (None, path.read_text()) if suffix == "JSON" else ("", path.read_text())
    rows = json.loads(text) if suffix == "JSON" else [*csv.DictReader(text.splitlines())]
    assert [row["error"] for row in rows] == [empty, errors.get(1, empty), empty]
    assert rows[1]["predicted"] == (empty if errors else "bee")
    assert (rows[1]["p(ant)"] == empty) == bool(errors)
    assert [row["predicted"] for row in (rows[0], rows[2])] == ["ant", "ant"]
