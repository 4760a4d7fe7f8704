import pytest

from transfer_jax.data.table_split import read_split


def read(column, *values):
    return read_split(column, values, range(2, len(values) + 2), "t.csv")


@pytest.mark.parametrize(
    ("column", "values", "parts"),
    [
        ("split", ("train", "val"), "tv"),
        ("split", ("TRAINING", " Validation ", "test"), "tvx"),
        ("set", ("train", "test"), "tx"),
        ("partition", ("dev", "train"), "vt"),
        ("isvalid", ("True", "False"), "vt"),
        ("isvalid", ("0", "1"), "tv"),
        ("istest", ("no", "yes"), "tx"),
        ("istrain", ("1", "0"), "tv"),
        ("isvalid", ("train", "valid"), "tv"),
    ],
)
def test_values_of_a_split(column, values, parts):
    found = read(column, *values)
    names = {"t": "training", "v": "validation", "x": "test"}
    assert found.parts == [names[part] for part in parts]
    counts = [f"1 {name}" for part, name in names.items() if part in parts]
    assert f"gives the split: {', '.join(counts[:-1])} and {counts[-1]} images" in found.notes[0]


@pytest.mark.parametrize(
    ("column", "values"), [("fold", ("0", "1")), ("set", ("A", "B")), ("part", ("wing", ""))]
)
def test_other_columns_are_no_split(column, values):
    assert read(column, *values) == (None, [])


def test_a_single_part_is_no_split():
    parts, notes = read("split", "train", "train")
    assert parts is None
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
