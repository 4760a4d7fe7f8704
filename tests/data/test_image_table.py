import numpy as np
import pytest

from transfer_jax.data import from_csv

PAIRS = [("cat/x.png", "tabby"), ("dog/b.png", "poodle"), ("cat/deep/er/y.png", "tabby")]


def write(folder, *rows, header="path,label", separator=","):
    """Writes a table with a row for each tuple."""
    lines = [separator.join(row) for row in rows]
    (folder / "t.csv").write_text("\n".join([*([header] if header else []), *lines, ""]), encoding="utf-8")
    return folder / "t.csv"


@pytest.mark.parametrize("header", ["path,label", "label,path", "file,kind", "\ufefflabel,path"])
def test_from_csv_reads_images_and_classes(animals, cat, header):
    rows = [row[::-1] if "label,path" in header else row for row in PAIRS]
    dataset = from_csv(write(animals, *rows, header=header))
    assert dataset.class_names == ("poodle", "tabby")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.names == ["cat/x.png", "dog/b.png", "cat/deep/er/y.png"]
    assert dataset.notes == ()
    np.testing.assert_array_equal(dataset.image(1), cat[:20, :30])


def test_csv_columns_and_root(animals, tmp_path, cat):
    table = tmp_path / "elsewhere.csv"
    table.write_text(f"id,where,what\n1,cat/x.png,a\n2,{animals / 'dog' / 'b.png'},b\n")
    dataset = from_csv(table, image_column="where", label_column="what", root=animals)
    assert dataset.class_names == ("a", "b")
    np.testing.assert_array_equal(dataset.image(0), cat[2:22, :30])
    np.testing.assert_array_equal(dataset.image(1), cat[:20, :30])


@pytest.mark.parametrize(
    ("text", "options", "groups"),
    [
        ("path,label,group\ncat/x.png,a,left\ndog/b.png,b,\n", {}, ["left", "none"]),
        ("group,label,path\nleft,a,cat/x.png\nright,b,dog/b.png\n", {}, ["left", "right"]),
        ("path,label,site\ncat/x.png,a,1\ndog/b.png,b,2\n", {"group_column": "site"}, ["1", "2"]),
        ("path,label,site\ncat/x.png,a,1\ndog/b.png,b,2\n", {}, None),
        ("path,group\ncat/x.png,a\ndog/b.png,b\n", {}, None),
    ],
)
def test_csv_groups(animals, text, options, groups):
    (animals / "t.csv").write_text(text)
    dataset = from_csv(animals / "t.csv", **options)
    assert dataset.class_names == ("a", "b")
    assert (None if dataset.groups is None else dataset.groups.tolist()) == groups
    plain = "path,label\ncat/x.png,a\ndog/b.png,b\n"
    (animals / "plain.csv").write_text(plain)
    assert dataset.fingerprint == from_csv(animals / "plain.csv").fingerprint


def test_csv_fingerprint_depends_on_its_labels(animals):
    prints = set()
    for text in ("cat/x.png,a\ndog/b.png,b", "cat/x.png,b\ndog/b.png,a", "dog/b.png,b\ncat/x.png,a"):
        (animals / "t.csv").write_text("path,label\n" + text)
        prints.add(from_csv(animals / "t.csv").fingerprint)
    assert len(prints) == 2  # The order of the rows alone makes no difference.


def test_a_table_without_a_header_keeps_its_first_image(animals):
    dataset = from_csv(write(animals, *PAIRS, header=""))
    assert dataset.names == [name for name, _ in PAIRS]
    assert "no header: its first row is read as an image, 'cat/x.png'" in dataset.notes[0]


def test_a_header_is_no_image_even_if_a_file_has_its_name(animals):
    (animals / "path").write_bytes(b"x")
    assert len(from_csv(write(animals, *PAIRS))) == 3


def test_the_split_of_a_table_is_kept(animals):
    parts = ("train", "val", "train", "test")
    rows = [*PAIRS, ("dog/a.JPG", "tabby")]
    rows = [(*row, part) for row, part in zip(rows, parts, strict=True)]
    dataset = from_csv(write(animals, *rows, ("cat/z.webp", "poodle", "Training"), header="path,label,Split"))
    assert dataset.names == [*(name for name, _ in PAIRS), "dog/a.JPG", "cat/z.webp"]
    assert dataset.held_out is not None
    assert dataset.held_out.tolist() == [False, True, False, False, False]
    assert dataset.test is not None
    assert dataset.test.tolist() == [False, False, False, True, False]
    assert "3 training, 1 validation and 1 test images" in dataset.notes[0]


def test_test_images_without_a_label_are_left_out(animals):
    rows = [*((*pair, "train") for pair in PAIRS), ("dog/a.JPG", "", "test")]
    dataset = from_csv(write(animals, *rows, header="path,label,split"))
    assert dataset.names == [name for name, _ in PAIRS]
    assert (dataset.held_out, dataset.test) == (None, None)
    assert "1 test image without a label is left out" in dataset.notes


def test_columns_that_are_not_used_are_noted(animals):
    rows = [(name, label, "7") for name, label in PAIRS]
    dataset = from_csv(write(animals, *rows, header="path,label,fold"))
    assert dataset.held_out is None
    assert "labels are read from 'label' and images from 'path'; unused: 'fold'" in dataset.notes[0]


def test_rows_that_repeat_an_image_are_read_once(animals):
    dataset = from_csv(write(animals, *PAIRS, ("./cat//x.png", "tabby")))
    assert dataset.names == [name for name, _ in PAIRS]
    assert "1 row that repeats an image is ignored" in dataset.notes[0]


def test_spaces_around_paths_are_removed(animals):
    dataset = from_csv(write(animals, *((f" {name} ", label) for name, label in PAIRS)))
    assert dataset.names == [name for name, _ in PAIRS]
    assert "spaces around 3 paths are removed" in dataset.notes[0]


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        (
            "path,label\ncat/x.png,a\n",
            {"image_column": "file"},
            ValueError,
            "no column 'file'.*'path', 'label'",
        ),
        ("path,label\ncat/x.png,a\n", {"group_column": "site"}, ValueError, "no column 'site'"),
        ("path\ncat/x.png\n", {}, ValueError, "no column 'label'; its columns are 'path'"),
        ("", {}, ValueError, "is empty: it needs a header"),
        ("path,label\ncat/x.png,\n", {}, ValueError, "column 'label': 1 of 1 row .* in line 2"),
        ("path,label\ncat/x.png,a\ndog/b.png\n", {}, ValueError, "1 of 2 rows .* in line 3"),
        ("path,label\n,a\n", {}, ValueError, "column 'path': no path in line 2"),
        ("path,label\ncat/x.png,a\ndog/b.png,b,c\n", {}, ValueError, "line 3: 3 fields, but .* has 2"),
        ("path,label\ncat/x.png,a,c\ndog/b.png,b,c\n", {}, ValueError, "line 2: 3 fields, but .* has 2"),
        (
            "path,label\ncat/x.png,a\n./cat/x.png,b\n",
            {},
            ValueError,
            "'cat/x.png' more than once, with the labels 'a' in line 2 and 'b' in line 3",
        ),
        (
            "path,label,set\ncat/x.png,a,train\ndog/b.png,b,train\ncat/x.png,a,val\n",
            {},
            ValueError,
            "two parts of the split, in line 2 and in line 4",
        ),
        (
            "path,label,is_valid\ncat/x.png,a,0\ndog/b.png,b,1\n",
            {},
            ValueError,
            "classes with validation or test images but no training images: 'b'",
        ),
        ("path,label\ncat/x.png,a\ndog/b.png,a\n", {}, ValueError, r"column 'label' has the classes \['a'\]"),
        ("path,is_valid\ncat/x.png,True\ndog/b.png,False\n", {}, ValueError, "has no column 'label'"),
        ("path,label\n", {}, ValueError, "has a header, but no rows: it needs a row for each image"),
        (
            "path,label\ncat/x.png,a\nno.png,b\n",
            {},
            FileNotFoundError,
            "1 of 2 images .*: 'no.png' in line 3",
        ),
        ("path,label\ncat/x.png,a\ndog,b\n", {}, FileNotFoundError, "'dog' is a folder, not an image"),
    ],
)
def test_invalid_tables_raise(animals, text, options, error, message):
    (animals / "t.csv").write_text(text)
    with pytest.raises(error, match=message):
        from_csv(animals / "t.csv", **options)


def test_missing_table_raises(tmp_path):
    with pytest.raises(ValueError, match=r"the file '.*nowhere.csv' does not exist"):
        from_csv(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="is a folder, not a table"):
        from_csv(tmp_path)
