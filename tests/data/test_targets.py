import numpy as np
import pytest

from transfer_jax.data import from_arrays, stratified_split
from transfer_jax.data.targets import make_targets

IMAGES = np.zeros((40, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("values", "names", "expected", "task_names"),
    [
        ([["b"], ["a", "b"], []], None, [[0, 1], [1, 1], [0, 0]], ("a", "b")),
        ([[1], [0, 1], []], ["x", "y"], [[0, 1], [1, 1], [0, 0]], ("x", "y")),
        (np.array([[1, 0], [1, 1]]), ["x", "y"], [[1, 0], [1, 1]], ("x", "y")),
        (np.array([[True, False]]), None, [[1, 0]], ("label 0", "label 1")),
        ([[1, 0, 1], [0, 0, 1]], None, [[1, 0, 1], [0, 0, 1]], ("label 0", "label 1", "label 2")),
        ([np.array([2]), np.array([0, 2])], None, [[0, 1], [1, 1]], ("0", "2")),
    ],
    ids=["names", "positions", "columns", "booleans", "lists of 0 and 1", "numbers"],
)
def test_several_labels(values, names, expected, task_names):
    labels, task = make_targets(values, "multi_label", names)
    np.testing.assert_array_equal(labels, expected)
    assert (labels.dtype, task.kind, task.names) == (np.uint8, "multi_label", task_names)


@pytest.mark.parametrize("values", [[1.5, 2, 3], np.array([[1.5], [2], [3]])], ids=["list", "column"])
def test_numbers(values):
    labels, task = make_targets(values, "regression", ["age"])
    np.testing.assert_array_equal(labels, [[1.5], [2], [3]])
    assert (labels.dtype, task.kind, task.names) == (np.float32, "regression", ("age",))


def test_ordered_classes():
    labels, task = make_targets(["10 high", "2 low", "10 high"], "ordinal")
    assert (labels.tolist(), task.names) == ([1, 0, 1], ("2 low", "10 high"))
    labels, task = make_targets(["high", "low"], "ordinal", ["low", "high"])
    assert (labels.tolist(), task.kind) == ([1, 0], "ordinal")


@pytest.mark.parametrize(
    ("values", "task", "names", "message"),
    [
        (["a", "b"], "multi_label", None, "must be lists, but that of example 0 is 'a'"),
        (np.array([[0, 2]]), "multi_label", None, "must be 0 or 1 in each column, got 2"),
        ([["a"], ["c"]], "multi_label", ["a", "b"], "labels 'c' are not among 'a', 'b'"),
        (np.eye(2), "multi_label", ["a"], "got 1 names for 2 columns"),
        (["a", "b"], "regression", None, "must be numbers"),
        ([1.0, np.nan], "regression", None, r"missing or infinite for 1 of 2 examples \(first at position 1"),
        ([1.0, 2.0], "regression", ["a", "b"], "got the names 'a', 'b' for 1 columns"),
        (["low", "high"], "ordinal", None, "order of the classes 'high', 'low' is unknown"),
        (["a"], "detection", None, "task must be single_label, multi_label, regression, ordinal or auto"),
        (np.linspace(0, 1, 30), "auto", None, "For measurements pass task='regression'"),
    ],
    ids=[
        "text",
        "values",
        "unknown",
        "names",
        "words",
        "missing",
        "columns",
        "order",
        "kind",
        "measurements",
    ],
)
def test_invalid_targets_raise(values, task, names, message):
    with pytest.raises(ValueError, match=message):
        make_targets(values, task, names)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([["a"], ["b"], ["a", "b"], []] * 10, "multi_label"),
        (np.arange(40.0), "regression"),
        ([0, 1, 2, 3] * 10, "ordinal"),
    ],
    ids=["multi_label", "regression", "ordinal"],
)
def test_a_split_keeps_the_proportions(labels, task):
    dataset = from_arrays(IMAGES, labels, task=task)
    train, validation = stratified_split(dataset, 0.25, 0)
    assert (len(train), len(validation)) == (30, 10)
    assert train.task == dataset.task
    parts = [each.labels.astype(float).mean(0) for each in (train, validation)]
    np.testing.assert_allclose(parts[1], parts[0], atol=0.15 * dataset.labels.max())
