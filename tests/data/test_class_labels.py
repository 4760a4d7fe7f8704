import enum

import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.data.class_labels import class_labels


class Column:
    """A column of a table, or a tensor: NumPy can read it."""

    def __init__(self, *values: object) -> None:
        self.values = np.array(values, dtype=object)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.values


class Size(enum.IntEnum):
    SMALL = 0
    LARGE = 1


class NAType:
    """The missing value of pandas."""


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        (["dog", np.str_("cat"), "dog"], [1, 0, 1], ("cat", "dog")),
        ([3, np.int64(1), np.uint8(3)], [1, 0, 1], ("1", "3")),
        ([0, 2, -1], [1, 2, 0], ("-1", "0", "2")),
        ([10, 9, 10], [1, 0, 1], ("9", "10")),
        ([True, False, np.True_], [1, 0, 1], ("False", "True")),
        ([1.0, 0.0, 1.0], [1, 0, 1], ("0", "1")),
        ([b"dog", "cat", b"dog"], [1, 0, 1], ("cat", "dog")),
        (np.array([b"dog", b"cat", b"dog"]), [1, 0, 1], ("cat", "dog")),
        (np.array(["dog", "cat", "dog"], dtype=object), [1, 0, 1], ("cat", "dog")),
        (Column("dog", "cat", "dog"), [1, 0, 1], ("cat", "dog")),
        (Column(7, 5.0, 7), [1, 0, 1], ("5", "7")),
        (np.array([[1], [0], [1]]), [1, 0, 1], ("0", "1")),
        (jnp.array([1, 0, 1]), [1, 0, 1], ("0", "1")),
        ((jnp.int32(4), 2, 4), [1, 0, 1], ("2", "4")),
    ],
)
def test_distinct_values_are_the_classes(labels, expected, names):
    positions, found = class_labels(labels)
    assert positions.tolist() == expected
    assert positions.dtype == np.int32
    assert found == names


@pytest.mark.parametrize(
    ("labels", "class_names", "expected"),
    [
        ([1, 0], np.array(["a", "b"]), [1, 0]),
        (["b", "a"], ["a", "b"], [1, 0]),
        ([True, False], ("a", "b"), [1, 0]),
        ([7, -1], {-1: "a", 7: "b"}, [1, 0]),
        ([7, -1], {"a": np.int64(-1), "b": 7}, [1, 0]),
        (["b", "a"], {1: "b", 0: "a"}, [1, 0]),
        ([10, 9], {"10": "b", "9": "a"}, [1, 0]),
        ([Size.LARGE, Size.SMALL], ["a", "b"], [1, 0]),
    ],
)
def test_classes_are_given(labels, class_names, expected):
    positions, names = class_labels(labels, class_names)
    assert positions.tolist() == expected
    assert names == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        (["a", 3], None, "got both 'a' and 3"),
        (["a", None, "b", None], None, r"missing for 2 of 4 images \(first at position 1\)"),
        ([1.0, float("nan")], None, "missing for 1 of 2"),
        (np.array([np.nan, 1.0]), None, "missing for 1 of 2"),
        (Column("a", NAType()), None, "missing for 1 of 2"),
        (["a", ""], None, "missing for 1 of 2"),
        (np.ma.array([1, 2], mask=[False, True]), None, "missing for 1 of 2"),
        ([0.5, 1, 2.25], None, "2 of 3 are numbers such as 0.5. For measurements pass"),
        (range(30), None, "30 different numbers for 30 images, 0 to 29: they look like measurements"),
        (np.eye(3), None, r"got shape \(3, 3\); if several .* one-hot, labels.argmax\(axis=1\)"),
        ([[0, 1], [1, 0]], None, r"label 0 is \[0, 1\]; for several labels pass"),
        ("cat", None, "got str"),
        ([1j, 2], None, "got 1j of type complex"),
        (np.array(["2020-01-01"], "M8[D]"), None, "got datetime64"),
        ([b"\xff", b"a"], None, "UTF-8"),
        ([0, 2], ("a", "b"), r"0\.\.1 for the 2 classes 'a', 'b', got 0\.\.2"),
        ([-1, 0], ("a", "b"), r"got -1\.\.0"),
        ([1, 2], ("a", "b"), "subtract 1"),
        (["a", "x"], ("a", "b"), "labels 'x' are not among the 2 classes 'a', 'b'"),
        ([0, 5], {0: "a", 1: "b"}, "labels 5 are not among the 2 classes 0, 1"),
        ([0, 1], ["a", "a"], "'a' more than once"),
        ([0, 1], "ab", "must be a list of names, got 'ab'"),
        ([0, 1], {"a", "b"}, "arbitrary"),
        ([0, 1], {"a": "b"}, "must map whole numbers to names"),
        ([0, 1], {"a": 0, "b": 0}, "different numbers"),
    ],
)
def test_invalid_labels_raise(labels, class_names, message):
    with pytest.raises(ValueError, match=message):
        class_labels(labels, class_names)


def test_many_numbers_are_classes_if_they_repeat_or_are_named():
    assert len(class_labels([*range(30)] * 2)[1]) == 30
    assert len(class_labels(range(30), [f"class {i}" for i in range(30)])[1]) == 30
    assert len(class_labels([str(i) for i in range(30)])[1]) == 30
