import pytest

from transfer_jax.data.table_columns import find_columns, is_header

PATHS = ("a.png", "b.png")


def is_file(field):
    return field in PATHS


def find(header, *columns, **wanted):
    """Returns the names of the columns that are found, and of the others."""
    rows = [list(row) for row in zip(*columns, strict=True)]
    found = find_columns(header.split(","), rows, wanted, is_file, "t.csv")
    names = header.split(",")
    return {kind: names[i] for kind, i in found.used.items()}, [names[i] for i in found.others]


@pytest.mark.parametrize(
    ("header", "columns", "used"),
    [
        ("filename,class", (PATHS, "xy"), {"image": "filename", "label": "class"}),
        ("Breed,Image_ID", ("xy", "12"), {"image": "Image_ID", "label": "Breed"}),
        ("class name,IMG", ("xy", PATHS), {"image": "IMG", "label": "class name"}),
        (",path,label", ("01", PATHS, "xy"), {"image": "path", "label": "label"}),
        ("Unnamed: 0,path,kind", ("01", PATHS, "xy"), {"image": "path", "label": "kind"}),
        (",label", (PATHS, "xy"), {"image": "", "label": "label"}),
        ("kind,thing", ("xy", PATHS), {"image": "thing", "label": "kind"}),
        ("path,label,,", (PATHS, "xy", ("", ""), ("", "")), {"image": "path", "label": "label"}),
        (
            "path,is_valid,label",
            (PATHS, "01", "xy"),
            {"image": "path", "label": "label", "split": "is_valid"},
        ),
        ("path,kind,split", (PATHS, "xy", "12"), {"image": "path", "label": "kind", "split": "split"}),
    ],
)
def test_columns_by_name_and_content(header, columns, used):
    assert find(header, *columns) == (used, [])


def test_given_names_come_first_and_others_are_listed():
    used, others = find("path,label,breed,age", PATHS, "01", "xy", "45", label="breed")
    assert used == {"label": "breed", "image": "path"}
    assert others == ["label", "age"]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("image,MEL,NV,BCC", (PATHS, "10", "01", "00"), r"one-hot\): 'MEL', 'NV', 'BCC'"),
        ("image,cat,dog", (PATHS, ("1.0", "0.0"), ("0.0", "1.0")), "one-hot"),
        ("path,label,label", (PATHS, "xy", "xy"), "2 columns 'label'"),
        ("image,foo,bar", (PATHS, "xy", "zw"), "2 others may contain the classes: 'foo', 'bar'"),
        ("path,split", (PATHS, "12"), "no column 'label'; its columns are 'path', 'split'"),
    ],
)
def test_unclear_columns_raise(header, columns, message):
    with pytest.raises(ValueError, match=message):
        find(header, *columns)


@pytest.mark.parametrize(
    ("row", "header"),
    [(("path", "a"), True), (("kind", "x"), True), (("a.png", "x"), False), (("x", "b.png"), False)],
)
def test_a_row_with_an_image_is_no_header(row, header):
    assert is_header(row, is_file) is header
