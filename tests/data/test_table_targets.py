import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import load_dataset


@pytest.fixture
def table(tmp_path):
    """A function that writes a table of images with columns of targets, and returns its path."""

    def write(header: str, cells: list[str]) -> str:
        for row in range(len(cells)):
            Image.fromarray(np.full((8, 8, 3), row, np.uint8)).save(tmp_path / f"{row}.png")
        lines = [f"path;{header}", *(f"{row}.png;{each}" for row, each in enumerate(cells))]
        (tmp_path / "table.csv").write_text("\n".join(lines))
        return f"csv:{tmp_path / 'table.csv'}"

    return write


@pytest.mark.parametrize("separator", ["|", ","])
def test_cells_with_several_labels(table, separator):
    cells = [f"cat{separator} dog", "dog", "", f"cat{separator}emu"]
    dataset = load_dataset(table("labels", cells), task="multi_label")
    assert dataset.class_names == ("cat", "dog", "emu")
    np.testing.assert_array_equal(dataset.labels, [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert any(f"separated by {separator!r}; 1 image has none" in note for note in dataset.notes)


def test_a_column_for_each_label(table):
    dataset = load_dataset(
        table("cat;dog", ["1;0", "true;1", "0;", "1;no"]) + "?label=cat,dog", task="multi_label"
    )
    assert dataset.class_names == ("cat", "dog")
    np.testing.assert_array_equal(dataset.labels, [[1, 0], [1, 1], [0, 0], [1, 0]])


def test_columns_of_numbers(table):
    dataset = load_dataset(
        table("age;height", ["1.5;2", "3;-4", "1,25;0"]) + "?label=age,height", task="regression"
    )
    assert dataset.class_names == ("age", "height")
    np.testing.assert_array_equal(dataset.labels, [[1.5, 2], [3, -4], [1.25, 0]])


def test_ordered_classes(table):
    cells = ["low", "high", "mid", "low"]
    dataset = load_dataset(table("grade", cells) + "?label=grade&classes=low,mid,high", task="ordinal")
    assert (dataset.task.kind, dataset.labels.tolist()) == ("ordinal", [0, 2, 1, 0])


def test_tables_of_different_targets_have_different_fingerprints(table):
    first = load_dataset(table("age", ["1", "2", "3"]), task="regression").fingerprint
    assert load_dataset(table("age", ["1", "2", "4"]), task="regression").fingerprint != first


@pytest.mark.parametrize(
    ("header", "cells", "task", "message"),
    [
        ("age", ["1", "x"], "regression", "'x' in line 3 is no number, which the task regression needs"),
        ("age", ["1", ""], "regression", "no number in line 3"),
        ("cat;dog", ["1;2", "0;0"], "multi_label", "'2' in line 2 must be one of"),
        ("a;b", ["x;y", "y;x"], "auto", "columns a,b of a table are several targets"),
    ],
    ids=["word", "empty", "flag", "columns"],
)
def test_invalid_cells_raise(table, header, cells, task, message):
    columns = header.replace(";", ",")
    with pytest.raises(ValueError, match=message):
        load_dataset(f"{table(header, cells)}?label={columns}", task=task)


def test_a_folder_has_no_numbers(tmp_path):
    with pytest.raises(ValueError, match="list the images and their targets in a table, csv:FILE"):
        load_dataset(str(tmp_path), task="regression")
