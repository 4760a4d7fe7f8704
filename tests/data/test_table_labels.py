import re

import pytest

from transfer_jax.data.table_labels import read_labels


def read(*labels):
    return read_labels(labels, range(2, len(labels) + 2), "t.csv")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (("a", "b"), ["a", "b"]),
        (("0", "1", "007"), ["0", "1", "007"]),
        (("none", "na", "crack"), ["none", "na", "crack"]),
        (("8", "9.5a", "0.5 mm"), ["8", "9.5a", "0.5 mm"]),
        (tuple(map(str, range(10))), [*map(str, range(10))]),
    ],
)
def test_plain_labels_stay_as_they_are(written, names):
    assert read(*written) == (names, [])


@pytest.mark.parametrize(
    ("written", "names", "note"),
    [
        ((" a", "b ", "a"), ["a", "b", "a"], "spaces around labels are removed in 2 rows"),
        (("0.0", "1.0", "1"), ["0", "1", "1"], "'0.0' are whole numbers and become '0'"),
        (("1,0", "2,0"), ["1", "2"], "'1,0' are whole numbers"),
        (("Cat", "cat", "dog"), ["Cat", "cat", "dog"], r"different classes: 'Cat' \(1\) and 'cat' \(1\)"),
        (("caf\u00e9", "cafe\u0301"), ["caf\u00e9", "caf\u00e9"], None),
        (("a", "b", "a|b"), ["a", "b", "a|b"], "several labels in 1 row, such as 'a|b' in line 4"),
        (("a", "b", "b a"), ["a", "b", "b a"], "'b a' in line 4"),
        (("a;b", "b;c", "c;a"), ["a;b", "b;c", "c;a"], "several labels in 3 rows"),
        (("['a', 'b']", "['c']"), ["['a', 'b']", "['c']"], "several labels in 1 row"),
    ],
)
def test_labels_with_notes(written, names, note):
    found, notes = read(*written)
    assert found == names
    assert len(notes) == (note is not None)
    assert note is None or re.search(note, notes[0])


def test_words_in_a_column_of_tags_are_several_labels():
    tags = ("haze primary", "clear primary", "clear water", "haze water")
    assert "such as 'haze primary' in line 2" in read_labels(tags, range(2, 6), "t.csv", plural=True)[1][0]
    assert read(*tags)[1] == []


def test_many_whole_numbers_are_noted_unless_they_are_positions():
    ages = [str(20 + i % 40) for i in range(400)]
    assert "40 whole numbers from 20 to 59, and each is a class" in read(*ages)[1][0]
    assert read(*(str(i % 40) for i in range(400)))[1] == []


def test_words_and_places_are_not_several_labels():
    assert read("red apple", "green apple", "red pear")[1] == []
    assert read("Paris, France", "Rome, Italy", "Lyon, France")[1] == []


@pytest.mark.parametrize("missing", ["", " ", "NaN", "nan", "NA", "None", "null", "?", "<NA>"])
def test_missing_labels_raise_with_their_lines(missing):
    with pytest.raises(ValueError, match=r"2 of 4 rows have no label .* in lines 3, 5"):
        read("a", missing, "b", missing)


@pytest.mark.parametrize(
    "labels",
    [
        [f"{i / 7:.4f}" for i in range(3000)],
        [f"{i / 7:.4f}".replace(".", ",") for i in range(3000)],
        [str(i) for i in range(1000)],
        [str(i * 7 % 31) for i in range(40)],
        ["0.5", "1.5"] * 20,
        [*(f"{i / 3:.3f}" for i in range(40)), "unknown"],
        [f"{i}e-3" for i in range(1, 30)],
    ],
)
def test_numbers_lead_to_a_question_of_regression(labels):
    with pytest.raises(ValueError, match="use --task regression") as error:
        read(*labels)
    assert len(str(error.value)) < 500


def test_texts_that_are_all_different_raise_shortly():
    with pytest.raises(ValueError, match=r"500 different labels .*: csv:FILE\?label=COLUMN") as error:
        read(*(f"caption {i}" for i in range(500)))
    assert len(str(error.value)) < 500
