import numpy as np
import pytest

from transfer_jax.data import from_csv


@pytest.mark.parametrize("header", ["path,label", "label,path", "file,kind", "\ufefflabel,path"])
def test_from_csv_reads_images_and_classes(animals, cat, header):
    rows = [("cat/x.png", "tabby"), ("dog/b.png", "poodle"), ("cat/deep/er/y.png", "tabby")]
    if "label,path" in header:
        rows = [(label, path) for path, label in rows]
    table = animals / "table.csv"
    table.write_text("\n".join([header, *map(",".join, rows)]), encoding="utf-8")
    dataset = from_csv(table)
    assert dataset.class_names == ("poodle", "tabby")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.names == ["cat/x.png", "dog/b.png", "cat/deep/er/y.png"]
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
        ("path\ncat/x.png\n", {}, ValueError, r"no column 'label'; its columns are \['path'\]"),
        ("", {}, ValueError, r"no column 'path'; its columns are \[\]"),
        ("path,label\ncat/x.png,\n", {}, ValueError, "line 2: empty 'label' column"),
        ("path,label\ncat/x.png,a\ndog/b.png\n", {}, ValueError, "line 3: empty 'label' column"),
        ("path,label\n,a\n", {}, ValueError, "line 2: empty 'path' column"),
        ("path,label\ncat/x.png,a\ncat/x.png,b\n", {}, ValueError, "more than once: 'cat/x.png'"),
        ("path,label\ncat/x.png,a\ndog/b.png,a\n", {}, ValueError, r"column 'label' has the classes \['a'\]"),
        ("path,label\n", {}, ValueError, r"has the classes \[\]"),
        ("path,label\ncat/x.png,a\nno.png,b\n", {}, FileNotFoundError, "1 of 2 images .*: '.*no.png'"),
    ],
)
def test_invalid_tables_raise(animals, text, options, error, message):
    (animals / "t.csv").write_text(text)
    with pytest.raises(error, match=message):
        from_csv(animals / "t.csv", **options)


def test_missing_table_raises(tmp_path):
    with pytest.raises(ValueError, match=r"the file '.*nowhere.csv' does not exist"):
        from_csv(tmp_path / "nowhere.csv")
