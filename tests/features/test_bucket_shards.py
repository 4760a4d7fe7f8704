"""Caches in object storage, by a folder that is used like a bucket."""

import dataclasses
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from transfer_jax.features import (
    CorruptFeaturesError,
    FeatureBudgetError,
    FeatureCache,
    FeatureCacheDir,
    FeatureKey,
    Layout,
    RowFormat,
    bucket_shards,
    shard_writer,
    write_shards,
)
from transfer_jax.storage import object_cache, remote
from transfer_jax.storage.remote import local_path

KEY = FeatureKey(weights="w", boundary="top", preprocessing={}, dtype="float32", dataset="d")
ROWS, BATCH = 23, 4
DATA = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32)
LABELS = np.arange(ROWS, dtype=np.int32)
ADDRESS = "gs://bucket/features"


class Bucket(DirFileSystem):
    """A local folder with the interface of object storage, which counts requests and can refuse them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, fsspec.filesystem("file", auto_mkdir=True))
        self.requests: list[str] = []
        self.denied = ""

    def unstrip_protocol(self, name: str) -> str:
        return f"gs://{name}"

    def _note(self, kind: str, path: str) -> None:
        self.requests.append(f"{kind} {path.rsplit('/', 1)[-1]}")
        if kind == self.denied:
            raise PermissionError("403 Forbidden")

    def get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        self._note("get", rpath)
        super().get_file(rpath, lpath, **options)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._note("put", rpath)
        super().put_file(lpath, rpath, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self._note("read" if start is None else f"{end - start} bytes of", path)  # type: ignore[operator]
        return super().cat_file(path, start, end, **options)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, and shards of eight rows."""
    found = Bucket(tmp_path / "storage")
    monkeypatch.setattr(fsspec, "filesystem", lambda kind, **options: found)
    monkeypatch.setattr(shard_writer, "_SHARD_BYTES", 2 * BATCH * DATA[0].nbytes)
    machine(monkeypatch, tmp_path / "first")
    return found


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Continues as on a machine with nothing on its disk."""
    monkeypatch.setenv(remote.CACHE, str(folder / "mirrors"))
    monkeypatch.setenv(object_cache.FOLDER, str(folder / "objects"))
    monkeypatch.setattr(remote, "_mirrors", {})


def extract(key: FeatureKey = KEY, *, breaks: int = -1, root: str = ADDRESS, budget: int | None = None):
    """Extracts `DATA`; raises KeyboardInterrupt before a batch."""

    def batches(ranges):
        for first, last in ranges:
            for row in range(first, last, BATCH):
                if row == breaks * BATCH:
                    raise KeyboardInterrupt
                yield {"features": DATA[row : min(row + BATCH, last)]}

    layout = Layout(ROWS, BATCH, RowFormat.single((5,), key.stored or key.dtype))
    return write_shards(key, layout, batches, LABELS, FeatureCacheDir(local_path(root), budget))


def objects(bucket: Bucket) -> dict[str, bytes]:
    names = [str(name) for name in bucket.find("bucket/features")]
    return {name.rsplit("/", 1)[-1]: bucket.cat_file(name) for name in names}


@pytest.mark.parametrize("stored", [None, "float16", "int8"])
def test_objects_are_the_files_of_a_local_cache_written_once(bucket, tmp_path, stored):
    key = dataclasses.replace(KEY, stored=stored)
    local = extract(key, root=str(tmp_path / "local")).cache
    cache = extract(key).cache
    shards = [name for name in bucket.requests if "shard" in name and "note" not in name]
    assert shards == [f"put {name}" for name in local.manifest.shards()]
    rows = np.array([22, 3, 9, 9, 0])
    np.testing.assert_array_equal(cache.gather(rows)["features"], local.gather(rows)["features"])
    assert cache.error == local.error
    assert objects(bucket) == {path.name: path.read_bytes() for path in local.directory.iterdir()}
    assert not [*cache.directory.glob("*")]  # Nothing is mirrored.
    assert not [name for name in bucket.requests if name.startswith("get")]  # Its own shards are kept.


def test_each_shard_is_downloaded_once_to_another_machine(bucket, tmp_path, monkeypatch):
    folder = extract().cache.directory.name
    machine(monkeypatch, tmp_path / "second")
    bucket.requests.clear()
    cache = FeatureCache(f"{ADDRESS}/{folder}")
    assert cache.is_remote
    np.testing.assert_array_equal(cache.gather([1, 17, 2])["features"], DATA[[1, 17, 2]])
    assert sorted(x for x in bucket.requests if "get" in x) == ["get shard-00000.npy", "get shard-00002.npy"]
    again = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(again[16]["features"], DATA[16])
    again.read()
    assert not again.is_remote
    np.testing.assert_array_equal(again.gather(range(ROWS))["features"], DATA)
    assert len([x for x in bucket.requests if "get" in x]) == 3


def test_a_machine_without_space_reads_into_memory(bucket, tmp_path, monkeypatch):
    folder = extract().cache.directory.name
    machine(monkeypatch, tmp_path / "second")
    monkeypatch.setenv(object_cache.GIGABYTES, "0")
    cache = FeatureCache(f"{ADDRESS}/{folder}")
    np.testing.assert_array_equal(cache.gather(range(ROWS))["features"], DATA)


def test_several_processes_read_their_rows_as_ranges(bucket, tmp_path, monkeypatch):
    folder = extract().cache.directory.name
    machine(monkeypatch, tmp_path / "second")
    monkeypatch.setattr(bucket_shards.processes, "count", lambda: 2)
    bucket.requests.clear()
    cache = FeatureCache(f"{ADDRESS}/{folder}")
    for _ in range(2):
        np.testing.assert_array_equal(cache.gather([9, 8, 10])["features"], DATA[[9, 8, 10]])
    assert [x for x in bucket.requests if "shard" in x] == ["60 bytes of shard-00001.npy"]
    np.testing.assert_array_equal(cache.gather([9, 15])["features"], DATA[[9, 15]])
    assert bucket.requests[-1] == "get shard-00001.npy"


@pytest.mark.parametrize("breaks", range(1, 6))
def test_an_interrupted_extraction_is_completed_by_another_machine(bucket, tmp_path, monkeypatch, breaks):
    with pytest.raises(KeyboardInterrupt):
        extract(breaks=breaks)
    machine(monkeypatch, tmp_path / "second")
    (folder,) = bucket.ls("bucket/features", detail=False)
    with pytest.raises(CorruptFeaturesError, match=rf"^{ADDRESS}/\w+ is incomplete: the extraction was"):
        FeatureCache(f"gs://{folder}")
    again = extract()
    assert again.rows == ROWS - breaks // 2 * 8
    np.testing.assert_array_equal(again.cache.gather(range(ROWS))["features"], DATA)
    assert sorted(objects(bucket)) == ["labels.npy", "manifest.json", *again.cache.manifest.shards()]


def test_missing_and_truncated_objects_are_extracted_again(bucket, tmp_path, monkeypatch, caplog):
    folder = f"bucket/features/{extract().cache.directory.name}"
    bucket.pipe_file(f"{folder}/shard-00000.npy", b"truncated")
    bucket.rm_file(f"{folder}/shard-00002.npy")
    machine(monkeypatch, tmp_path / "second")
    with pytest.raises(CorruptFeaturesError, match=rf"{ADDRESS}/\w+/shard-00000.npy does not match"):
        FeatureCache(f"gs://{folder}")
    with caplog.at_level(logging.WARNING):
        assert extract().rows == 15
    assert ADDRESS in caplog.text


def test_changed_objects_are_an_error_when_they_are_read(bucket, tmp_path, monkeypatch):
    folder = f"bucket/features/{extract().cache.directory.name}"
    content = bucket.cat_file(f"{folder}/shard-00001.npy")
    bucket.pipe_file(f"{folder}/shard-00001.npy", content[:-1] + b"!")
    machine(monkeypatch, tmp_path / "second")
    cache = FeatureCache(f"gs://{folder}")
    np.testing.assert_array_equal(cache.gather([1])["features"], DATA[[1]])
    with pytest.raises(CorruptFeaturesError, match=r"shard-00001.npy does not match its checksum; delete it"):
        cache.gather([9])


def test_the_least_recently_used_caches_of_a_bucket_are_deleted_over_budget(bucket, tmp_path, monkeypatch):
    one, two, three, four = (dataclasses.replace(KEY, seed=seed) for seed in range(4))
    for key in (one, two, three):
        extract(key)
    for age, key in enumerate((three, two, one)):  # The first is the oldest.
        for path in (tmp_path / "storage").glob(f"bucket/features/{key.digest()[:20]}/*"):
            used = time.time() - 10 * age - 100
            os.utime(path, (used, used))
    machine(monkeypatch, tmp_path / "second")
    extract(one)  # Used again, by another machine.
    extract(four, budget=3 * DATA.nbytes)
    names = [key.digest()[:20] for key in (one, two, three, four)]
    left = [bucket.exists(f"bucket/features/{name}/manifest.json") for name in names]
    assert left == [True, False, True, True]
    with pytest.raises(FeatureBudgetError, match=f"of {ADDRESS}; raise feature_gigabytes"):
        extract(two, budget=DATA.nbytes - 1)


@pytest.mark.parametrize(("age", "left"), [(0.0, True), (7200.0, False)])
def test_a_cache_that_another_machine_writes_is_not_deleted(bucket, tmp_path, monkeypatch, age, left):
    with pytest.raises(KeyboardInterrupt):
        extract(breaks=3)
    for path in (tmp_path / "storage").glob("bucket/features/*/*"):
        os.utime(path, (time.time() - age, time.time() - age))
    machine(monkeypatch, tmp_path / "second")
    extract(dataclasses.replace(KEY, seed=1), budget=DATA.nbytes)
    assert bucket.exists(f"bucket/features/{KEY.digest()[:20]}/manifest.json") == left


@pytest.mark.parametrize("denied", ["put", "read"])
def test_a_missing_permission_names_the_object(bucket, denied):
    bucket.denied = denied
    with pytest.raises(PermissionError, match=rf"{ADDRESS}/\w+/manifest.json: 403 Forbidden"):
        extract()
