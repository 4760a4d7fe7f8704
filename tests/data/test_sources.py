from pathlib import Path

import numpy as np
import pytest

from transfer_jax.data import load_dataset, sources
from transfer_jax.data.remote import packed_records


@pytest.fixture
def folder(tmp_path, cat, encode):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(encode(cat[:8, :8]))
    (tmp_path / "set" / "table.csv").write_text("path,label\na/1.png,x\nb/1.png,y\n")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("form", "class_names"), [("folder:{}", ("a", "b")), ("{}", ("a", "b")), ("csv:{}/table.csv", ("x", "y"))]
)
def test_folders_and_tables(folder, cat, form, class_names, monkeypatch):
    dataset = load_dataset(form.format(folder))
    assert dataset.class_names == class_names
    np.testing.assert_array_equal(dataset.image(1), cat[:8, :8])
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_dataset(form.format("~/set")).fingerprint == dataset.fingerprint


def test_a_path_is_a_folder(folder):
    assert load_dataset(folder).fingerprint == load_dataset(f"{folder}/").fingerprint


def test_a_file_in_place_of_a_folder(folder):
    with pytest.raises(
        ValueError, match=r"table.csv' is a file, not a folder; for a table use csv:.*table.csv"
    ):
        load_dataset(str(folder / "table.csv"))


@pytest.mark.parametrize(("source", "size"), [("elpv", 2624), ("elpv:any", 2624), ("elpv:sure", 2223)])
def test_elpv_sources(elpv_data_dir, source, size):
    assert len(load_dataset(source, elpv_data_dir)) == size


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("tfds:mnist", ("mnist", "train", "here")),
        ("tfds:mnist:test", ("mnist", "test", "here")),
        ("tfds:mnist:3.0.1", ("mnist:3.0.1", "train", "here")),
        ("tfds:imagenet2012/small:5.1.0:train[5:10]", ("imagenet2012/small:5.1.0", "train[5:10]", "here")),
        ("tfds:mnist:train[:75%]", ("mnist", "train[:75%]", "here")),
    ],
)
def test_tfds_names_versions_and_splits(monkeypatch, source, arguments):
    monkeypatch.setattr(sources, "from_tfds", lambda *args, **options: (*args, options))
    assert load_dataset(source, "here", task="ordinal") == (*arguments, {"task": "ordinal", "progress": None})


def test_columns_of_a_table(folder):
    (folder / "table.csv").write_text("id,file,breed,sex\n1,a/1.png,x,m\n2,b/1.png,y,f\n")
    dataset = load_dataset(f"csv:{folder / 'table.csv'}?image=file&label=sex&group=breed")
    assert dataset.class_names == ("f", "m")
    assert dataset.groups is not None
    assert dataset.groups.tolist() == ["x", "y"]
    with pytest.raises(
        ValueError, match=r"expected csv:FILE\?image=KEY&label=KEY.*, got 'csv:\.\.\.\?lable=sex'"
    ):
        load_dataset(f"csv:{folder / 'table.csv'}?lable=sex")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("elvp", "unknown dataset 'elvp': expected elpv.*folder:PATH.* Did you mean 'elpv'"),
        ("foldr:x", "Did you mean 'folder'"),
        ("pets", r"unknown dataset 'pets': .*, or the path of a folder\.$"),
        ("data/pets", r"the folder 'data/pets' does not exist"),
        ("~/no/such/folder", "no/such/folder' does not exist"),
        ("~no-such-user/pets", "the folder '~no-such-user/pets' does not exist"),
        (r"C:\data\pets", "pets' does not exist"),
        ("foldr:data/pets", "Did you mean 'folder'"),
        (Path("no/pets"), "the folder 'no/pets' does not exist"),
        (["a", "b"], r"images must be one string such as folder:PATH, got \['a', 'b'\]"),
        ("folder:", "unknown dataset 'folder:'"),
        ("", "unknown dataset ''"),
        ("elpv:maybe", "one of any, likely, sure, confidence, .*, got 'maybe'"),
        ("folder:no/such/folder", "the folder 'no/such/folder' does not exist"),
        ("csv:no/such/table.csv", "table.csv' does not exist"),
        ("tfds::train", r"expected tfds:NAME\[:VERSION\]\[:SPLIT\], got 'tfds::train'"),
    ],
)
def test_invalid_sources_raise(source, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(source)


def test_a_large_folder_is_offered_to_be_packed(folder, monkeypatch):
    assert not [note for note in load_dataset(folder).notes if "transfer-jax pack" in note]
    monkeypatch.setattr(packed_records, "_LARGE", 1)
    assert f"transfer-jax pack {folder} {folder}-packed" in load_dataset(folder).notes[-1]
