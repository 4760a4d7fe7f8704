import dataclasses
import logging
import resource
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features import (
    CorruptFeaturesError,
    FeatureCache,
    FeatureCacheDir,
    FeatureKey,
    Layout,
    RowFormat,
    write_shards,
)
from transfer_jax.features import shard_writer as module

KEY = FeatureKey(weights="w", boundary="top", preprocessing={"image_size": 8}, dtype="float32", dataset="d")
ROWS, BATCH, SHAPE = 23, 4, (3, 5)
DATA = np.random.default_rng(0).normal(size=(ROWS, *SHAPE)).astype(np.float32)
LABELS = np.arange(ROWS, dtype=np.int32) % 3
FILES = ["shard-00000.npy", "shard-00001.npy", "shard-00002.npy", "labels.npy", "manifest.json"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Sets eight rows a shard: 8, 8 and 7."""
    monkeypatch.setattr(module, "_SHARD_BYTES", 2 * BATCH * DATA[0].nbytes)


class Source:
    """Yields the batches of `DATA` and records them; raises KeyboardInterrupt before batch `breaks`."""

    def __init__(self, *, breaks: int = -1, dtype: Any = np.float32) -> None:
        self.breaks, self.dtype, self.given = breaks, dtype, []

    def __call__(self, pieces):
        for first, last in pieces:
            for row in range(first, last, BATCH):
                if row == self.breaks * BATCH:
                    raise KeyboardInterrupt
                self.given.append(row // BATCH)
                yield {"features": DATA[row : min(row + BATCH, last)].astype(self.dtype)}


def run(
    root, source: Any = None, key: FeatureKey = KEY, *, labels=LABELS, advance=lambda rows: None, **changes
):
    row_format = RowFormat.single(SHAPE, key.stored or key.dtype)
    layout = dataclasses.replace(Layout(ROWS, BATCH, row_format), **changes)
    return write_shards(key, layout, source or Source(), labels, FeatureCacheDir(root), advance=advance)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(data)


def test_features_are_read_as_written(tmp_path):
    advanced = []
    extraction = run(tmp_path, advance=advanced.append)
    assert extraction.rows == ROWS == sum(advanced) == len(extraction.cache)
    assert sorted(contents(extraction.cache.directory)) == sorted(FILES)
    rows = np.array([22, 0, 9, 9, 7, 8, 15, 16])
    np.testing.assert_array_equal(extraction.cache.gather(rows)["features"], DATA[rows])
    reopened = FeatureCache(extraction.cache.directory)
    np.testing.assert_array_equal(reopened.gather(np.arange(ROWS))["features"], DATA)
    np.testing.assert_array_equal(np.load(extraction.cache.directory / "labels.npy"), LABELS)
    np.testing.assert_array_equal(np.load(extraction.cache.directory / "shard-00002.npy"), DATA[16:])


def test_bfloat16_features(tmp_path):
    key = dataclasses.replace(KEY, dtype="bfloat16")
    cache = run(tmp_path, Source(dtype=jnp.bfloat16), key).cache
    found = FeatureCache(cache.directory).gather(np.arange(ROWS))["features"]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, DATA.astype(jnp.bfloat16))


@pytest.mark.parametrize(("stored", "largest"), [("float16", 5e-4), ("bfloat16", 4e-3), ("int8", 2e-2)])
def test_reduced_precision_reports_its_error(tmp_path, stored, largest):
    key = dataclasses.replace(KEY, stored=stored)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Source(breaks=3), key)
    cache = run(tmp_path, key=key).cache
    found = np.asarray(cache.gather(np.arange(ROWS))["features"], np.float32)
    error = np.sqrt(np.mean((found - DATA) ** 2) / np.mean(DATA**2))
    np.testing.assert_allclose(cache.error, error, rtol=1e-3)
    assert 0 < cache.error < largest
    columns = cache.columns(np.array([9, 0, 22]))
    assert str(columns["features"].dtype) == stored
    assert columns.keys() == ({"features", "scale"} if stored == "int8" else {"features"})
    np.testing.assert_array_equal(
        cache.gather([9, 0, 22])["features"], cache.gather(np.arange(ROWS))["features"][[9, 0, 22]]
    )
    shards = [np.load(cache.directory / name) for name in cache.manifest.shards()]
    assert cache.manifest.bytes == sum(shard.nbytes for shard in shards)


def test_full_precision_has_no_error(tmp_path):
    assert run(tmp_path).cache.error == 0.0


def test_features_out_of_the_range_of_float16_raise(tmp_path):
    huge = lambda pieces: ({"features": 1e5 * np.abs(x["features"])} for x in Source()(pieces))  # noqa: E731
    with pytest.raises(ValueError, match="out of the range of float16, which ends at 65504; choose bfloat16"):
        run(tmp_path, huge, dataclasses.replace(KEY, stored="float16"))


def test_second_extraction_computes_nothing(tmp_path):
    first = run(tmp_path)
    before = contents(first.cache.directory)
    source, advanced = Source(), []
    second = run(tmp_path, source, advance=advanced.append)
    assert (source.given, second.rows) == ([], 0)
    assert sum(advanced) == ROWS
    assert contents(second.cache.directory) == before


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "v"},
        {"boundary": "stem"},
        {"preprocessing": {"image_size": 9}},
        {"dtype": "bfloat16"},
        {"dataset": "e"},
        {"augmentation": {"rotate90": True}},
        {"views": 2},
        {"seed": 1},
        {"stored": "float16"},
    ],
)
def test_each_field_of_the_key_selects_another_cache(tmp_path, change):
    first = run(tmp_path).cache
    second = run(tmp_path, key=dataclasses.replace(KEY, **change))
    assert second.rows == ROWS
    assert second.cache.directory != first.directory
    assert run(tmp_path).rows == 0


@pytest.mark.parametrize(
    "change", [{"rows": 20, "labels": LABELS[:20]}, {"row_format": RowFormat.single((5, 3), "float32")}]
)
def test_changed_layout_is_extracted_again(tmp_path, change):
    run(tmp_path)
    shape = (5, 3) if "row_format" in change else SHAPE
    reshaped = lambda pieces: ({"features": x["features"].reshape(-1, *shape)} for x in Source()(pieces))  # noqa: E731
    again = run(tmp_path, reshaped, **change)
    assert again.rows == len(again.cache) == change.get("rows", ROWS)
    np.testing.assert_array_equal(again.cache.gather(range(20))["features"], DATA[:20].reshape(20, *shape))


@pytest.mark.parametrize("breaks", range(6))
def test_interrupted_extraction_continues_to_identical_bytes(tmp_path, breaks):
    whole = contents(run(tmp_path / "whole").cache.directory)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Source(breaks=breaks))
    (folder,) = (tmp_path / "cut").glob("[!.]*")
    with pytest.raises(CorruptFeaturesError, match="is incomplete: the extraction was interrupted"):
        FeatureCache(folder)
    source = Source()
    again = run(tmp_path / "cut", source)
    assert source.given == list(range(breaks // 2 * 2, 6))  # two batches a shard: complete shards are kept
    assert again.rows == ROWS - breaks // 2 * 8
    assert contents(folder) == whole


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_reported_and_extracted_again(tmp_path, name, damage, caplog):
    folder = run(tmp_path).cache.directory
    whole = contents(folder)
    if damage == "flip":
        flip(folder / name)
    elif damage == "cut":
        (folder / name).write_bytes(whole[name][:-1])
    else:
        (folder / name).unlink()
    missing = name == "manifest.json" and damage == "delete"
    with pytest.raises(FileNotFoundError if missing else CorruptFeaturesError, match=name):
        FeatureCache(folder)
    with caplog.at_level(logging.WARNING):
        source = Source()
        again = run(tmp_path, source)
    if not missing:
        (record,) = caplog.records
        assert str(folder / name) in record.getMessage()
    expected = {"labels.npy": 0, "shard-00000.npy": 8, "shard-00001.npy": 8, "shard-00002.npy": 7}.get(
        name, ROWS
    )
    assert again.rows == expected
    assert len(source.given) == -(-expected // BATCH)
    assert contents(folder) == whole


def test_only_missing_shards_are_extracted(tmp_path):
    folder = run(tmp_path).cache.directory
    whole = contents(folder)
    for index in (0, 2):
        (folder / f"shard-0000{index}.npy").unlink()
    source = Source()
    assert run(tmp_path, source).rows == 15
    assert source.given == [0, 1, 4, 5]
    assert contents(folder) == whole


def test_full_disk_keeps_complete_shards(tmp_path):
    whole = contents(run(tmp_path / "whole").cache.directory)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def until_disk_is_full(pieces):
        for index, batch in enumerate(Source()(pieces)):
            if index == 3:  # as on a full disk, a write fails in the middle of a file
                resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
            yield batch

    try:
        with pytest.raises(OSError, match="File too large"):
            run(tmp_path / "full", until_disk_is_full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (folder,) = (tmp_path / "full").glob("[!.]*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "labels.npy",
        "manifest.json",
        "shard-00000.note.json",
        "shard-00000.npy",
    ]
    assert run(tmp_path / "full").rows == ROWS - 8
    assert contents(folder) == whole
