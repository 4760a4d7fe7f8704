"""A table and its images in a folder that is used like a bucket."""

import pickle

import pytest
from local_bucket import Bucket, bucket_fixture, folder, server_fixture

from transfer_jax.data import from_csv, load_dataset
from transfer_jax.data.remote import folder_listing
from transfer_jax.data.remote.bucket_table import from_bucket_table

TABLE = (
    "path,label,split,camera\n"
    "a/1.png,x,train,one\na/2.png,y,train,two\nb/3.png,y,val,one\nb/4.png,x,val,two\n"
)


server = server_fixture(folder)
empty = bucket_fixture()


@pytest.fixture
def bucket(empty: Bucket) -> Bucket:
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        empty.system.pipe_file(f"bucket/set/{name}", name.encode())
    empty.system.pipe_file("bucket/set/t.csv", TABLE.encode())
    return empty


def test_it_is_the_dataset_of_the_local_table(bucket, tmp_path):
    for name, content in bucket.objects("set/").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    here = from_csv(tmp_path / "set/t.csv", group_column="camera")
    there = from_bucket_table("gs://bucket/set/t.csv", group_column="camera")
    assert [*there.names] == [*here.names]
    for name in ("labels", "held_out", "groups", "sizes"):
        assert getattr(there, name).tolist() == getattr(here, name).tolist()
    assert there.class_names == here.class_names
    assert there.test is None
    assert there.contents([2, 0]) == [b"b/3.png", b"a/1.png"]
    assert pickle.loads(pickle.dumps(there)).read(1) == b"a/2.png"


def test_a_later_start_lists_nothing_until_the_table_changes(bucket, monkeypatch):
    first = load_dataset("csv:gs://bucket/set/t.csv")
    outer_folders = folder_listing.outer_folders
    monkeypatch.setattr(folder_listing, "outer_folders", lambda folder: pytest.fail("listed again"))
    assert load_dataset("csv:gs://bucket/set/t.csv").fingerprint == first.fingerprint
    monkeypatch.setattr(folder_listing, "outer_folders", outer_folders)
    bucket.system.pipe_file("bucket/set/t.csv", TABLE.replace("4.png,x", "4.png,y").encode())
    assert load_dataset("csv:gs://bucket/set/t.csv").labels.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ("gs://bucket/set/a/1.png,x\ngs://bucket/set/b/3.png,y\n", ["a/1.png", "b/3.png"]),
        ("/home/me/set/a/1.png,x\n/home/me/set/b/3.png,y\n", ["a/1.png", "b/3.png"]),
        ("a\\1.PNG,x\nb\\3.png,y\n", ["a/1.png", "b/3.png"]),
    ],
)
def test_paths_as_people_write_them_are_found(bucket, rows, names):
    bucket.system.pipe_file("bucket/set/u.csv", f"path,label\n{rows}".encode())
    dataset = load_dataset("csv:gs://bucket/set/u.csv")
    assert [*dataset.names] == names
    assert dataset.contents([1]) == [b"b/3.png"]


def test_missing_images_are_named_with_the_address_of_the_table(bucket):
    bucket.system.pipe_file("bucket/set/u.csv", b"path,label\na/1.png,x\na/9.png,y\n")
    message = (
        r"1 of 2 images of 'gs://bucket/set/u.csv' does not exist: 'a/9.png' in line 3; paths are relative"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load_dataset("csv:gs://bucket/set/u.csv")


def test_a_missing_table_is_an_error(bucket):
    with pytest.raises(ValueError, match=r"'gs://bucket/set/none.csv'"):
        load_dataset("csv:gs://bucket/set/none.csv")
