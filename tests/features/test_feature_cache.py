import hashlib
import multiprocessing
import pickle
import weakref
from collections.abc import Mapping

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features import (
    ArrayFormat,
    DeviceFeatureCache,
    FeatureCache,
    FeatureCacheDir,
    FeatureKey,
    Layout,
    RowFormat,
    write_shards,
)
from transfer_jax.features import shard_writer as module

ROWS, BATCH = 23, 4
ARRAYS = {
    "map": np.linspace(-4, 4, ROWS * 12, dtype=np.float32).reshape(ROWS, 2, 2, 3),
    "half": np.linspace(-1, 1, ROWS * 5).reshape(ROWS, 5).astype(jnp.bfloat16),
    "tokens": np.arange(ROWS * 7, dtype=np.int32).reshape(ROWS, 7),
    "bytes": np.arange(ROWS * 3, dtype=np.int8).reshape(ROWS, 3),
    "mask": np.arange(ROWS * 7).reshape(ROWS, 7) % 2 == 0,
    "label": np.arange(ROWS) % 3,
}
"""Arrays whose rows are of a size that is no multiple of four bytes."""
STORED = {"map": "int8", "half": "float16"}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Sets eight rows a shard, for rows of 8 to 15 floats."""
    monkeypatch.setattr(module, "_SHARD_BYTES", 480)


def exact(name: str) -> ArrayFormat:
    array = ARRAYS[name]
    return ArrayFormat(array.shape[1:], str(array.dtype), "int8" if array.dtype == np.int8 else None)


def reduced(name: str) -> ArrayFormat:
    array = ARRAYS[name]
    return ArrayFormat(array.shape[1:], STORED.get(name, str(array.dtype)), str(array.dtype))


def write(root, arrays: Mapping[str, np.ndarray], row_format: RowFormat, key: FeatureKey | None = None):
    def batches(ranges):
        for row in (row for first, last in ranges for row in range(first, last, BATCH)):
            yield {name: array[row : row + BATCH] for name, array in arrays.items()}

    key = key or FeatureKey(weights="w", boundary="b", preprocessing={}, dtype="", dataset="d")
    layout = Layout(ROWS, BATCH, row_format)
    labels = None if len(arrays) > 1 else np.arange(ROWS, dtype=np.int32) % 3
    return write_shards(key, layout, batches, labels, FeatureCacheDir(root)).cache


@pytest.fixture(params=["exact", "reduced"])
def cache(request, tmp_path) -> FeatureCache:
    formats = {name: (exact if request.param == "exact" else reduced)(name) for name in ARRAYS}
    return write(tmp_path, ARRAYS, RowFormat(formats))


def check_equal(found: Mapping[str, np.ndarray], rows) -> None:
    assert {*found} == {*ARRAYS}
    for name, array in found.items():
        wanted = ARRAYS[name][rows]
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
        error = 0.02 if name in STORED else 0
        np.testing.assert_allclose(array.astype(np.float32), wanted.astype(np.float32), atol=error)


def test_several_arrays_of_different_dtypes(cache):
    assert [path.name for path in sorted(cache.directory.iterdir())][:2] == [
        "manifest.json",
        "shard-00000.npy",
    ]
    assert len(cache.manifest.shards()) > 2
    assert cache.arrays == {
        name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in ARRAYS.items()
    }
    for rows in (np.array([22, 0, 9, 9, 7, 8, 15, 16]), np.array([1, 0]), np.arange(ROWS)):
        check_equal(cache.gather(rows), rows)
        check_equal(FeatureCache(str(cache.directory)).gather(rows), rows)
    assert [*cache.gather([0])] == [*ARRAYS]
    assert cache.gather([])["map"].shape == (0, 2, 2, 3)
    cache.read()
    check_equal(cache.gather(np.arange(ROWS)), np.arange(ROWS))
    assert (cache.error > 0) is ("scale" in cache.columns([0]))


def test_no_file_is_mapped_and_in_memory_longer_than_needed(cache, monkeypatch):
    again, mapped, copy = FeatureCache(cache.directory), [], np.array
    shards = [weakref.ref(shard) for shard in again._shards or []]

    def counted(value):
        mapped.append(sum(shard() is not None for shard in shards))
        return copy(value)

    with monkeypatch.context() as patch:
        patch.setattr(np, "array", counted)
        again.read()
    assert mapped == [*range(len(shards), 0, -1)]
    assert [shard() for shard in shards] == [None] * len(shards)
    check_equal(again.gather(np.arange(ROWS)), np.arange(ROWS))


def test_columns_of_several_arrays_are_dictionaries(cache):
    columns = cache.columns(np.array([3, 4]))
    assert columns["features"].keys() == ARRAYS.keys()
    if "scale" in columns:
        assert {name: each.shape for name, each in columns["scale"].items()} == {"map": (2, 3)}
        assert columns["features"]["map"].dtype == np.int8
    shapes = cache.manifest.row_format.column_shapes(2)
    assert shapes == jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), columns)


def test_copies_on_the_device(cache):
    on_device, rows = DeviceFeatureCache(cache), np.array([22, 0, 9, 8])
    found, wanted = on_device.columns(rows), cache.columns(rows)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    gathered = on_device.gather(rows)
    assert all(isinstance(array, jax.Array) for array in gathered.values())
    jax.tree.map(np.testing.assert_array_equal, gathered, cache.gather(rows))


def test_sequence_of_examples(cache):
    assert len(cache) == ROWS
    check_equal({name: array[None] for name, array in cache[7].items()}, [7])
    check_equal({name: array[None] for name, array in cache[np.int64(-1)].items()}, [ROWS - 1])
    assert cache[3]["label"].shape == ()
    assert len([*cache]) == ROWS
    assert str(cache.directory) in repr(cache)


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1])
def test_index_out_of_range_raises(cache, index):
    with pytest.raises(IndexError, match=f"index {index} is out of range for 23 examples"):
        cache[index]
    with pytest.raises(IndexError, match="out of range for 23 examples"):
        cache.gather([0, index])


@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], 1.0, "map"])
def test_other_indices_raise(cache, index):
    with pytest.raises(
        TypeError, match=r"an index must be an integer, .*; `gather` returns several examples"
    ):
        cache[index]


def test_grain_source(cache):
    batches = [*grain.MapDataset.source(cache).seed(0).shuffle().batch(8)]
    assert [len(batch["label"]) for batch in batches] == [8, 8, 7]
    rows = np.concatenate([batch["tokens"][:, 0] for batch in batches]) // 7
    assert sorted(rows) == [*range(ROWS)]
    check_equal(jax.tree.map(lambda *parts: np.concatenate(parts), *batches), rows)


def test_pickled_copy_maps_the_same_files(cache):
    cache.read()
    text = pickle.dumps(cache)
    assert len(text) < 500
    jax.tree.map(np.testing.assert_array_equal, pickle.loads(text)[3], cache[3])


def _sum_of_tokens(cache: FeatureCache, row: int) -> int:
    return int(cache[row]["tokens"].sum())


@pytest.mark.extended
def test_worker_processes_read_the_cache(cache):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_sum_of_tokens, (cache, 9)) == ARRAYS["tokens"][9].sum()


@pytest.mark.parametrize(
    ("dtype", "stored", "folder", "digest"),
    [
        ("float32", None, "9c94f4e147c155742527", "758e895e16e0e139378c"),
        ("bfloat16", None, "d8c07233c3616774952e", "c65284812f1ee4559e6e"),
        ("float32", "float16", "e227679216c9a8c0119f", "df882394a82f8dc8e16e"),
        ("float32", "int8", "18a3990a0fe85df6201e", "b91bc7fa3ed18f561c0d"),
    ],
)
def test_files_of_a_single_array_stay_the_same(tmp_path, dtype, stored, folder, digest):
    """Caches of version 0.1, with one array, have these names and contents."""
    features = ((np.arange(ROWS * 15) * 7919 % 1009 - 500) / 8).astype(dtype).reshape(ROWS, 3, 5)
    key = FeatureKey(
        weights="w",
        boundary="top",
        preprocessing={"image_size": 8},
        dtype=dtype,
        dataset="d",
        stored=stored,
    )
    cache = write(tmp_path, {"features": features}, RowFormat.single((3, 5), stored or dtype), key)
    assert cache.directory.name == folder
    files = sorted(cache.directory.iterdir())
    content = b"".join(path.name.encode() + b"\0" + path.read_bytes() for path in files)
    assert hashlib.sha256(content).hexdigest()[:20] == digest
    columns = cache.columns([0, 22])
    assert columns.keys() == ({"features", "scale"} if stored == "int8" else {"features"})
    assert columns["features"].shape == (2, 3, 5)
