import pytest

from transfer_jax.data.table_split import read_split


def read(column, *values):
    return read_split(column, values, range(2, len(values) + 2), "t.csv")


@pytest.mark.parametrize(
    ("column", "values", "held_out"),
    [
        ("split", ("train", "val"), [False, True]),
        ("split", ("TRAINING", " Validation ", "test"), [False, True, None]),
        ("set", ("train", "test"), [False, True]),
        ("partition", ("dev", "train"), [True, False]),
        ("isvalid", ("True", "False"), [True, False]),
        ("isvalid", ("0", "1"), [False, True]),
        ("istest", ("no", "yes"), [False, True]),
        ("istrain", ("1", "0"), [False, True]),
        ("isvalid", ("train", "valid"), [False, True]),
    ],
)
def test_values_of_a_split(column, values, held_out):
    found = read(column, *values)
    assert found.held_out == held_out
    assert "gives the split: 1 training and 1" in found.notes[0]


@pytest.mark.parametrize(
    ("column", "values"), [("fold", ("0", "1")), ("set", ("A", "B")), ("part", ("wing", ""))]
)
def test_other_columns_are_no_split(column, values):
    assert read(column, *values) == (None, [])


def test_a_single_part_is_no_split():
    held_out, notes = read("split", "train", "train")
    assert held_out is None
    assert notes[0].endswith("contains only 'train', so it gives no split")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("split", ("train", "val", "foo"), "unknown values: 'foo', first in line 4"),
        ("split", ("train", "", "val"), "unknown values: '', first in line 3"),
        ("split", ("0", "1"), "unknown values: '0', '1', first in line 2"),
        ("set", ("train", "7"), "unknown values: '7'"),
        ("isvalid", ("True", "maybe"), "unknown values: 'maybe'"),
        ("split", ("val", "test"), "no training images, only 'test', 'val'"),
    ],
)
def test_unknown_values_raise_with_their_line(column, values, message):
    with pytest.raises(ValueError, match=message):
        read(column, *values)
