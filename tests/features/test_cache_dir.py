import dataclasses
import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer_jax.features import (
    FeatureBudgetError,
    FeatureCacheDir,
    FeatureKey,
    Layout,
    RowFormat,
    write_shards,
)

KEY = FeatureKey(weights="w", boundary="top", preprocessing={"image_size": 8}, dtype="float32", dataset="d")
LAYOUT = Layout(rows=8, batch_size=2, row_format=RowFormat.single((5,), "float32"))
BYTES = 8 * 5 * 4


def numbered(number: int) -> FeatureKey:
    return dataclasses.replace(KEY, seed=number)


def put(store: FeatureCacheDir, key: FeatureKey, value: float = 0.0, layout: Layout = LAYOUT, **settings):
    """Extracts features that all have the same value."""
    batch = {"features": np.full((layout.batch_size, 5), value, np.float32)}
    batches = lambda pieces: (batch for a, b in pieces for _ in range(a, b, layout.batch_size))  # noqa: E731
    return write_shards(key, layout, batches, np.zeros(layout.rows, np.int32), store, **settings)


def exists(store: FeatureCacheDir, *numbers: int) -> list[bool]:
    return [(store.directory(numbered(number)) / "manifest.json").exists() for number in numbers]


def test_least_recently_used_caches_are_deleted_over_budget(tmp_path):
    store = FeatureCacheDir(tmp_path, 3 * BYTES)
    for number in (1, 2, 3):
        put(store, numbered(number))
    assert exists(store, 1, 2, 3) == [True, True, True]
    assert put(store, numbered(1)).rows == 0  # used again
    put(store, numbered(4))
    assert exists(store, 1, 2, 3, 4) == [True, False, True, True]
    put(store, numbered(5), layout=dataclasses.replace(LAYOUT, rows=16))
    assert exists(store, 1, 3, 4, 5) == [False, False, True, True]


def test_no_budget_keeps_all_caches(tmp_path):
    store = FeatureCacheDir(tmp_path)
    for number in range(5):
        put(store, numbered(number))
    assert all(exists(store, *range(5)))


def test_features_larger_than_the_budget_raise_before_extraction(tmp_path):
    put(FeatureCacheDir(tmp_path), numbered(1))
    store = FeatureCacheDir(tmp_path, BYTES - 1)
    wanted = r"need 1.6e-07 GB, more than the budget of 1.59e-07 GB of .*; raise feature_gigabytes, or choose"
    with pytest.raises(FeatureBudgetError, match=wanted):
        write_shards(
            numbered(2), LAYOUT, lambda pieces: pytest.fail("computed"), np.zeros(8, np.int32), store
        )
    assert exists(store, 1, 2) == [True, False]


def test_open_cache_stays_readable_after_deletion(tmp_path):
    store = FeatureCacheDir(tmp_path, BYTES)
    cache = put(store, numbered(1), 7.0).cache
    put(store, numbered(2))
    assert exists(store, 1, 2) == [False, True]
    assert (cache.gather(np.arange(8))["features"] == 7.0).all()


def test_drop_others_keeps_named_boundaries_and_locked_caches(tmp_path):
    store = FeatureCacheDir(tmp_path)
    keys = {name: dataclasses.replace(KEY, boundary=name) for name in ("stem", "top", "pre_logits")}
    for key in keys.values():
        put(store, key)
    with store.write_lock(keys["stem"], print):
        store.drop_others({"top", None})
    assert [name for name, key in keys.items() if store.directory(key).exists()] == ["stem", "top"]
    store.drop_others({"top"})
    assert [name for name, key in keys.items() if store.directory(key).exists()] == ["top"]


def test_linked_caches_are_not_deleted(tmp_path):
    """The learning-rate finder links to the caches of a run."""
    kept = put(FeatureCacheDir(tmp_path / "run"), numbered(1)).cache.directory
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / kept.name).symlink_to(kept)
    put(FeatureCacheDir(tmp_path / "scratch", BYTES), numbered(2))
    assert (kept / "shard-00000.npy").exists()


def test_damaged_manifests_count_towards_the_budget_and_are_deleted(tmp_path):
    store = FeatureCacheDir(tmp_path, 2 * BYTES)
    damaged = put(store, numbered(1)).cache.directory
    (damaged / "manifest.json").write_text("{")
    put(store, numbered(2))
    assert exists(store, 1, 2) == [False, True]
    assert not damaged.exists()


def lower(*boundaries: str):
    return {"lower": boundaries, "weights": lambda boundary: f"up to {boundary}"}


def at(boundary: str, **changes) -> FeatureKey:
    return dataclasses.replace(KEY, boundary=boundary, weights=f"up to {boundary}", **changes)


def test_origin_is_the_highest_lower_boundary_of_the_same_weights(tmp_path):
    store = FeatureCacheDir(tmp_path)
    blocks = lower("stem", "a", "b")
    assert store.origin(KEY, **blocks) is None
    put(store, at("stem"), 1.0)
    put(store, at("a"), 2.0)
    put(store, dataclasses.replace(at("b"), weights="changed"))
    found = store.origin(KEY, **blocks)
    assert found is not None
    assert found.boundary == "a"
    assert (found.gather(np.arange(8))["features"] == 2.0).all()
    assert store.origin(KEY, **lower("stem")).boundary == "stem"  # pyright: ignore[reportOptionalMemberAccess]
    put(store, KEY)
    assert store.origin(KEY, **blocks) is None, "the features are cached already"


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "e"},
        {"views": 2},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"augmentation": {"rotate90": True}},
    ],
)
def test_origin_needs_the_same_images_and_dtype(tmp_path, change):
    store = FeatureCacheDir(tmp_path)
    put(store, at("a", **change))
    assert store.origin(KEY, **lower("a")) is None


@pytest.mark.parametrize("damage", ["shard", "missing", "manifest", "incomplete"])
def test_damaged_cache_is_no_origin(tmp_path, damage):
    store = FeatureCacheDir(tmp_path)
    folder = put(store, at("a")).cache.directory
    shard, manifest = folder / "shard-00000.npy", folder / "manifest.json"
    if damage == "shard":
        shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    elif damage == "missing":
        shard.unlink()
    elif damage == "manifest":
        manifest.write_text("{}")
    else:
        manifest.unlink()
        layout = LAYOUT.manifest(at("a"), labels=True)
        layout.write(folder)
    assert store.origin(KEY, **lower("a")) is None


def test_each_cache_has_a_single_origin(tmp_path):
    store = FeatureCacheDir(tmp_path)
    folder = put(store, KEY, 1.0).cache.directory
    other = dataclasses.replace(LAYOUT, origin="a")
    assert put(store, KEY, 2.0, other).rows == 0, "complete features of any origin are used"
    (folder / "shard-00000.npy").unlink()
    again = put(store, KEY, 2.0, other)
    assert again.rows == 8
    assert again.cache.manifest.origin == "a"


def _extract_slowly(root: Path, log: Path, value: float, barrier: Any) -> None:
    def batches(pieces):
        for index in (row // 2 for first, last in pieces for row in range(first, last, 2)):
            time.sleep(0.3)
            with log.open("a") as file:
                file.write(f"{index}\n")
            yield {"features": np.full((2, 5), value, np.float32)}

    lines: list[str] = []
    barrier.wait()
    store = FeatureCacheDir(root)
    cache = write_shards(KEY, LAYOUT, batches, np.zeros(8, np.int32), store, log=lines.append).cache
    assert len({*cache.gather(np.arange(8))["features"].flat}) == 1
    if lines:
        with log.open("a") as file:
            file.write("waited\n")


def test_concurrent_processes_extract_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    log, barrier = tmp_path / "log", context.Barrier(2)
    processes = [
        context.Process(target=_extract_slowly, args=(tmp_path / "features", log, value, barrier))
        for value in (1.0, 2.0)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "waited"]


@pytest.mark.parametrize("name", [".shard-00000.npy.k3j2_0ab", ".labels.npy.0123abcd.tmp"])
def test_unfinished_files_of_a_killed_process_are_removed(tmp_path, name):
    store = FeatureCacheDir(tmp_path)
    folder = put(store, KEY).cache.directory
    (folder / "shard-00000.npy").unlink()
    (folder / name).write_bytes(b"half")
    assert put(store, KEY).rows == 8
    assert sorted(os.listdir(folder)) == ["labels.npy", "manifest.json", "shard-00000.npy"]


FOREIGN = (
    *(".DS_Store", "._manifest.json", "._shard-00000.npy", "._shard-00000.note.json", ".nfs0001"),
    *("Thumbs.db", ".manifest.json.swp", "manifest.json~"),
    *("shard-00000 (copy).npy", "shard-00000.npy.bak", "notes.txt"),
)


def test_foreign_files_in_a_cache_are_ignored_and_remain(tmp_path):
    store = FeatureCacheDir(tmp_path, BYTES)
    folder = put(store, numbered(1)).cache.directory
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "manifest.json").write_bytes(b"\0")
    for name in FOREIGN:
        (folder / name).write_bytes(b"\0\1")
    assert put(store, numbered(1)).rows == 0, "it is complete"
    (folder / "shard-00000.npy").unlink()
    assert put(store, numbered(1)).rows == 8, "it is extracted again"
    put(store, numbered(2))  # Deletes the first.
    assert exists(store, 1, 2) == [False, True]
    assert sorted(os.listdir(folder)) == sorted((*FOREIGN, "@eaDir"))


def test_copies_of_caches_under_other_names_are_neither_used_nor_deleted(tmp_path):
    store = FeatureCacheDir(tmp_path, 2 * BYTES)
    folder = put(store, at("a")).cache.directory
    for name in (f"{folder.name} (copy)", "backup", f"._{folder.name}"):
        shutil.copytree(folder, tmp_path / name)
    store.drop_others(())
    assert store.origin(KEY, **lower("a")) is None
    for number in (1, 2, 3):
        put(store, numbered(number))
    assert exists(store, 1, 2, 3) == [False, True, True]
    assert (tmp_path / "backup" / "shard-00000.npy").exists()
    assert (tmp_path / f"{folder.name} (copy)" / "manifest.json").exists()


def test_complete_features_on_a_read_only_disk_are_used(tmp_path, monkeypatch):
    put(FeatureCacheDir(tmp_path), KEY, 3.0)

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", read_only)
    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    found = put(FeatureCacheDir(tmp_path), KEY)
    assert found.rows == 0
    assert (found.cache.gather(np.arange(8))["features"] == 3.0).all()
