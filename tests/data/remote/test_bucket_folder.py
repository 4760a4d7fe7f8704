"""A folder of classes in a bucket: a folder that is used like one, and servers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from local_bucket import Bucket, bucket_fixture, folder, s3, server_fixture

from transfer_jax.data import from_folder
from transfer_jax.data.remote import bucket_folder, folder_listing, packed_records
from transfer_jax.data.remote.bucket_folder import from_bucket_folder
from transfer_jax.storage.byte_ranges import ChangedObjectError, StorageError
from transfer_jax.storage.object_listing import list_objects
from transfer_jax.storage.range_reads import RangeReader

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
server = server_fixture(folder, s3)
bucket = bucket_fixture()


@pytest.fixture
def address(bucket: Bucket, animals: Path) -> str:
    bucket.put(animals, "animals")
    return bucket.address("animals")


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that are downloaded."""
    asked: list[str] = []
    original = RangeReader._remote

    def remote_reads(self, ranges):
        asked.extend(each.place for each in ranges)
        return original(self, ranges)

    monkeypatch.setattr(RangeReader, "_remote", remote_reads)
    return asked


def test_it_is_the_dataset_of_the_local_folder(address, animals):
    here, there = from_folder(animals), from_bucket_folder(address)
    assert [*there.names] == [*here.names]
    assert there.class_names == here.class_names
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_array_equal(there.sizes, here.sizes)
    assert there.contents(range(len(here))) == [here.read(i) for i in range(len(here))]
    assert there.read(2) == here.read(2)
    assert {note for note in here.notes if "left out:" in note} <= {*there.notes}


def test_a_later_start_lists_and_downloads_nothing(address, monkeypatch):
    first = from_bucket_folder(address)
    asked = reads(monkeypatch)
    monkeypatch.setattr(folder_listing, "outer_folders", lambda folder: pytest.fail("listed again"))
    second = from_bucket_folder(address)
    assert asked == []
    assert second.fingerprint == first.fingerprint
    assert second.contents([1, 0]) == second.contents([1, 0])
    assert len(asked) == 2
    again = pickle.loads(pickle.dumps(second))
    assert again.contents([0, 1]) == [second.read(0), second.read(1)]
    assert len(asked) == 2


def test_a_listing_that_was_stopped_continues(bucket, tree, monkeypatch):
    names = [f"{i:02}" for i in range(20)]
    bucket.put(tree(*(f"{name}/{i}.png" for name in names for i in "12")), "many")
    bucket.system.pipe_file("bucket/many/readme.md", b"text")
    address, listed, original = bucket.address("many"), [], folder_listing._listed

    def stops(folder: str, address: str):
        if folder.endswith("/07"):
            raise KeyboardInterrupt
        return original(folder, address)

    def counts(folder: str, address: str):
        listed.append(folder.rpartition("/")[2])
        return original(folder, address)

    monkeypatch.setattr(folder_listing, "_listed", stops)
    with pytest.raises(KeyboardInterrupt):
        from_bucket_folder(address)
    monkeypatch.setattr(folder_listing, "_listed", counts)
    dataset = from_bucket_folder(address)
    assert "07" in listed
    assert not {*names[:7]} & {*listed}
    assert [*dataset.names] == [f"{name}/{i}.png" for name in names for i in "12"]
    assert any("1 .md" in note for note in dataset.notes)
    kept = {name.split("/")[2] for name in bucket.objects(f"many/{bucket_folder.INDEX_FOLDER}")}
    assert len(kept) == 1
    bucket.system.rm(f"bucket/many/{bucket_folder.INDEX_FOLDER}", recursive=True)
    monkeypatch.setattr(folder_listing, "outer_folders", lambda folder: (list_objects(folder), []))
    assert from_bucket_folder(address).fingerprint == dataset.fingerprint


def test_parts_of_a_split_are_read(bucket, tree):
    root = tree(
        *(f"{part}/{name}/{i}.png" for part in ("train", "val", "test") for name in "ab" for i in "01")
    )
    bucket.put(root, "split")
    dataset = from_bucket_folder(bucket.address("split"))
    assert dataset.held_out is not None
    assert dataset.test is not None
    assert (dataset.held_out.sum(), dataset.test.sum(), len(dataset)) == (4, 4, 12)


def test_a_changed_image_is_an_error_with_the_index_to_delete(bucket, address):
    dataset = from_bucket_folder(address)
    bucket.system.pipe_file(f"bucket/animals/{dataset.names[0]}", b"other")
    message = rf"{dataset.names[0]} has .*: delete {address}/.transfer_jax_index and start again"
    with pytest.raises(ChangedObjectError, match=message):
        dataset.contents([0])
    bucket.system.rm(f"bucket/animals/{bucket_folder.INDEX_FOLDER}", recursive=True)
    assert from_bucket_folder(address).contents([0]) == [b"other"]


def test_an_object_that_is_no_image_is_a_bad_image(bucket, address):
    bucket.system.pipe_file("bucket/animals/cat/bad.png", b"no image")
    dataset = from_bucket_folder(address)
    with pytest.raises(ValueError, match=r"cat/bad.png"):
        dataset.image([*dataset.names].index("cat/bad.png"))


def test_a_missing_folder_is_an_error(bucket):
    with pytest.raises(StorageError, match=r"://bucket/nothing does not exist; check the address"):
        from_bucket_folder(bucket.address("nothing"))


def test_a_folder_without_images_is_an_error(bucket):
    bucket.system.pipe_file("bucket/empty/readme.md", b"text")
    with pytest.raises(ValueError, match=r"://bucket/empty' has no class folders with images: .*'readme.md'"):
        from_bucket_folder(bucket.address("empty"))
    assert not [name for name in bucket.objects("empty/") if name.endswith("index.json")]


def test_one_class_is_enough_to_evaluate(bucket, tree):
    bucket.put(tree("a/1.png", "a/2.png"), "one")
    assert len(from_bucket_folder(bucket.address("one"), least_classes=1)) == 2
    with pytest.raises(ValueError, match="only the class folder 'a'; two or more"):
        from_bucket_folder(bucket.address("one"))


def test_a_large_folder_is_offered_to_be_packed(address, monkeypatch):
    monkeypatch.setattr(packed_records, "_LARGE", 4)
    notes = from_bucket_folder(address).notes
    assert f"transfer-jax pack {address} {address}-packed" in notes[-1]


def test_the_index_of_a_bucket_that_is_not_writable_is_kept_on_this_machine(bucket, address, monkeypatch):
    if bucket.kind == "s3":
        pytest.skip("a method of each instance")

    def refused(self, *args, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(bucket.system), "put_file", refused)
    first = from_bucket_folder(address)
    assert not [name for name in bucket.objects("animals/") if name.endswith("index.json")]
    monkeypatch.setattr(folder_listing, "outer_folders", lambda folder: pytest.fail("listed again"))
    second = from_bucket_folder(address)
    assert second.fingerprint == first.fingerprint
    assert "delete /" in second.notes[-1]
