import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features import (
    FeatureBudgetError,
    FeatureCache,
    FeatureCacheDir,
    cache_features,
    example_arrays,
)
from transfer_jax.features import shard_writer as module
from transfer_jax.freezing import partition
from transfer_jax.freezing.function_split import split_frozen

COUNT = 23


def keys(count: int) -> list[jax.Array]:
    return [*jax.random.split(jax.random.key(0), count)]


def conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def pooled(x):
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))


def unet(params, state, batch, key):
    """A U-Net: the encoder and its skips are frozen."""
    one = jax.nn.relu(conv(batch["image"], params["down"][0]))
    two = jax.nn.relu(conv(pooled(one), params["down"][1]))
    up = jnp.repeat(jnp.repeat(conv(two, params["up"][0]), 2, 1), 2, 2)
    return conv(jnp.concatenate([one, up], -1), params["up"][1])


def unet_params():
    shapes = [(3, 3, 3, 4), (3, 3, 4, 6), (3, 3, 6, 4), (1, 1, 8, 2)]
    arrays = [jax.random.normal(key, shape) / 4 for key, shape in zip(keys(4), shapes, strict=True)]
    return {"down": arrays[:2], "up": arrays[2:]}


def towers(params, state, batch, key):
    """A tower over pixels in float32 and one over tokens in bfloat16, with a mask that both parts need."""
    image = jnp.tanh(batch["image"].reshape(len(batch["image"]), -1) @ params["image"])
    mask = batch["tokens"] > 0
    text = jnp.where(mask[..., None], params["text"][batch["tokens"]], 0).sum(1)
    text = jnp.tanh(text @ params["mix"]).astype(jnp.bfloat16)
    return image @ params["head"] * text.astype(jnp.float32), mask.sum(1) * params["scale"]


def towers_params():
    shapes = {"image": (192, 8), "text": (11, 6), "mix": (6, 5), "head": (8, 5), "scale": ()}
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys(5), shapes.items(), strict=True)
    }


def linear(params, state, batch, key):
    return jnp.tanh(batch["image"].reshape(len(batch["image"]), -1) @ params["body"]) @ params["head"]


def linear_params():
    return {"body": jax.random.normal(keys(1)[0], (192, 6)), "head": jnp.ones((6, 3))}


def data(count: int = COUNT) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(count, 8, 8, 3)).astype(np.float32),
        "tokens": rng.integers(0, 11, (count, 7)).astype(np.int32),
        "label": np.arange(count, dtype=np.int32) % 3,
    }


def items(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: column[row] for name, column in columns.items()} for row in range(len(columns["label"]))]


def divided(function, params, trainable: tuple[str, ...], batch=None):
    """Returns a split, and the trainable and frozen parameters."""
    labels = {
        name: jax.tree.map(lambda _, name=name: "head" if name in trainable else "frozen", each)
        for name, each in params.items()
    }
    if batch is None:
        batch = {name: each for name, each in data(4).items() if name != "label"}
    split = split_frozen(function, params, labels, batch, flops_per_byte=math.inf)
    return split, *partition(params, labels)


def cached(tmp_path, examples=None, function=linear, params=None, **options) -> FeatureCache:
    split, _, frozen = divided(function, params or linear_params(), ("head",))
    examples = data() if examples is None else examples
    return cache_features(split, frozen, examples, tmp_path, **{"batch_size": 4, **options})


@pytest.mark.parametrize(
    ("function", "params", "trainable"),
    [
        pytest.param(unet, unet_params, ("up",), id="unet"),
        pytest.param(towers, towers_params, ("head", "scale"), id="towers"),
    ],
)
def test_suffix_of_cached_arrays_is_the_function(tmp_path, function, params, trainable):
    params, examples = params(), data()
    split, train, frozen = divided(function, params, trainable)
    assert len(split.features) > 1
    cache = cache_features(split, frozen, items(examples), tmp_path, batch_size=4)
    batch = cache.gather(np.arange(COUNT))
    assert {name: each.dtype.name for name, each in batch.items() if name in split.features} == {
        name: each.dtype for name, each in split.features.items()
    }
    found = split.suffix(train, frozen, None, batch, batch, None)
    wanted = function(params, None, {name: jnp.asarray(each) for name, each in examples.items()}, None)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), found, wanted)
    np.testing.assert_array_equal(batch["label"], examples["label"])
    one = cache[5]
    assert one.keys() == batch.keys()
    jax.tree.map(np.testing.assert_array_equal, one, {name: each[5] for name, each in batch.items()})


class Indexed:
    """The least that a source needs."""

    def __init__(self, examples: list) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(items, id="list"),
        pytest.param(lambda columns: Indexed(items(columns)), id="indexed"),
        pytest.param(lambda columns: grain.MapDataset.source(items(columns)), id="grain"),
        pytest.param(lambda columns: jax.tree.map(jnp.asarray, columns), id="jax"),
        pytest.param(
            lambda columns: [{**each, "image": each["image"].tolist()} for each in items(columns)], id="lists"
        ),
        pytest.param(lambda columns: [{**each, "name": "a"} for each in items(columns)], id="strings"),
    ],
)
def test_kinds_of_data_give_the_same_features(tmp_path, kind):
    wanted = cached(tmp_path / "columns", keep=("label",))
    found = cached(tmp_path / "other", kind(data()), keep=("label",))
    jax.tree.map(np.testing.assert_array_equal, found.gather(range(COUNT)), wanted.gather(range(COUNT)))


@pytest.mark.extended
def test_torch_dataset(tmp_path):
    torch = pytest.importorskip("torch")
    columns = {name: torch.from_numpy(array) for name, array in data().items()}

    class Examples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> dict:
            return {name: column[index] for name, column in columns.items()}

    wanted = cached(tmp_path / "columns").gather(range(COUNT))
    for number, source in enumerate((Examples(), columns)):
        found = cached(tmp_path / str(number), source).gather(range(COUNT))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    loader = torch.utils.data.DataLoader(Examples())
    with pytest.raises(ValueError, match="pass its `dataset`"):
        cached(tmp_path, loader)


@pytest.mark.extended
def test_hugging_face_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = data()
    source = datasets.Dataset.from_dict(
        {name: array.tolist() for name, array in columns.items()} | {"text": ["a"] * COUNT},
    )
    wanted = cached(tmp_path / "columns").gather(range(COUNT))
    for number, each in enumerate((source, source.with_format("numpy"))):
        found = cached(tmp_path / str(number), each).gather(range(COUNT))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
    ("keep", "names"),
    [(None, ["features", "label", "tokens"]), ((), ["features"]), ("label", ["features", "label"])],
)
def test_arrays_beside_the_features_are_kept(tmp_path, keep, names):
    cache = cached(tmp_path, keep=keep)
    assert [*cache.arrays] == names
    for name in names[1:]:
        np.testing.assert_array_equal(cache.gather(range(COUNT))[name], data()[name])


def test_labels_that_the_suffix_needs_are_kept(tmp_path):
    def loss(params, state, batch, key):
        return linear(params, state, batch, key)[jnp.arange(len(batch["label"])), batch["label"]]

    params = linear_params()
    split, train, frozen = divided(loss, params, ("head",), data(4))
    assert (split.inputs, [*split.prefix_inputs]) == (("label",), ["image"])
    batch = cache_features(split, frozen, data(), tmp_path).gather(range(COUNT))
    found = split.suffix(train, frozen, None, batch, batch, None)
    np.testing.assert_allclose(found, loss(params, None, data(), None), rtol=1e-5)


def test_second_call_reads_the_cache(tmp_path, monkeypatch):
    first = cached(tmp_path)
    monkeypatch.setattr(jax, "jit", lambda function: pytest.fail)
    assert cached(tmp_path).directory == first.directory
    assert cached(tmp_path, batch_size=7).directory == first.directory


def changed(tree: dict, name: str) -> dict:
    return {**tree, name: tree[name] + 1}


def doubled(params, state, batch, key):
    return linear(params, state, {"image": 2 * batch["image"]}, key)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"params": changed(linear_params(), "head")}, True, id="suffix-parameter"),
        pytest.param({"params": changed(linear_params(), "body")}, False, id="prefix-parameter"),
        pytest.param({"function": doubled}, False, id="function"),
        pytest.param({"examples": changed(data(), "image")}, False, id="image"),
        pytest.param({"examples": changed(data(), "label")}, False, id="label"),
        pytest.param({"examples": data(COUNT - 1)}, False, id="fewer"),
        pytest.param({"stored": "bfloat16"}, False, id="stored"),
        pytest.param({"keep": ()}, False, id="keep"),
        pytest.param({"fingerprint": "mine"}, False, id="fingerprint"),
    ],
)
def test_key_covers_prefix_and_data(tmp_path, changes, same):
    folder = cached(tmp_path).directory
    assert (cached(tmp_path, **changes).directory == folder) is same


@pytest.mark.parametrize(("free", "reads"), [(1 << 40, 1), (0, 2)])
def test_examples_are_read_once_if_memory_suffices(tmp_path, monkeypatch, free, reads):
    read: list[int] = []

    class Source(Indexed):
        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return super().__getitem__(index)

    memory = SimpleNamespace(available=free)
    monkeypatch.setattr(example_arrays.psutil, "virtual_memory", lambda: memory)
    found, wanted = cached(tmp_path / "a", Source(items(data()))), cached(tmp_path / "b")
    assert sorted(read) == sorted([0, *[*range(COUNT)] * reads])
    assert found.directory.name == wanted.directory.name
    jax.tree.map(np.testing.assert_array_equal, found.gather(range(COUNT)), wanted.gather(range(COUNT)))


def test_data_with_a_fingerprint_are_not_hashed(tmp_path):
    source = Indexed(items(data()))
    source.fingerprint = "1"  # pyright: ignore[reportAttributeAccessIssue]
    cached(tmp_path, source)
    source.examples = [source.examples[0], *[None] * (COUNT - 1)]
    assert len(cached(tmp_path, source)) == COUNT


@pytest.mark.parametrize(("stored", "largest"), [("bfloat16", 4e-3), ("float16", 5e-4), ("int8", 2e-2)])
def test_reduced_precision_is_of_floating_features_only(tmp_path, stored, largest):
    split, _, frozen = divided(towers, towers_params(), ("head", "scale"))
    columns = {**data(), "target": np.linspace(0, 1, COUNT, dtype=np.float32)}
    exact = cache_features(split, frozen, columns, tmp_path)
    cache = cache_features(split, frozen, columns, tmp_path, stored=stored)
    assert 0 < cache.error < largest
    assert cache.manifest.bytes < exact.manifest.bytes
    assert cache.arrays == exact.arrays
    found, wanted = cache.gather(range(COUNT)), exact.gather(range(COUNT))
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        if name not in split.features or not jnp.issubdtype(array.dtype, jnp.floating):
            np.testing.assert_array_equal(found[name], array)


def test_interrupted_extraction_resumes_at_the_next_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SHARD_BYTES", 400)
    wanted = cached(tmp_path / "whole", keep=())
    assert len(wanted.manifest.shards()) == 2

    class Source(Indexed):
        broken, read = True, set[int]()

        def __getitem__(self, index: int) -> Any:
            if index == 22 and self.broken:
                raise OSError("the disk is gone")
            self.read.add(index)
            return super().__getitem__(index)

    source = Source(items(data()))
    with pytest.raises(OSError, match="the disk is gone") as caught:
        cached(tmp_path / "cut", source, keep=(), fingerprint="d")
    assert caught.value.__notes__[0] == "while reading example 22"
    source.broken = False
    source.read.clear()
    found = cached(tmp_path / "cut", source, keep=(), fingerprint="d")
    assert source.read == {0, *range(16, COUNT)}, "the first example tells the arrays"
    np.testing.assert_array_equal(
        found.gather(range(COUNT))["features"], wanted.gather(range(COUNT))["features"]
    )


def test_progress_is_reported(tmp_path):
    calls: list[tuple] = []

    class Recorded:
        def start(self, task: str, total: int, *, done: int = 0) -> None:
            calls.append((task, total))

        def advance(self, images: int, **values: float) -> None:
            calls.append((images,))

        def finish(self) -> None:
            calls.append(())

        def log(self, message: str) -> None:
            calls.append((message,))

    cached(tmp_path, progress=Recorded())
    assert calls[:3] == [("hashing examples", COUNT), (COUNT,), ()]
    assert calls[3] == ("extracting features", COUNT)
    assert sum(call[0] for call in calls[4:-1]) == COUNT


def test_larger_features_are_logged(tmp_path, caplog):
    def wide(params, state, batch, key):
        return jnp.tanh(batch["image"].reshape(len(batch["image"]), -1) @ params["body"]) @ params["head"]

    params = {"body": jnp.ones((192, 193)), "head": jnp.ones((193, 2))}
    with caplog.at_level(logging.WARNING):
        cached(tmp_path, function=wide, params=params)
    assert "features of an example take 772 bytes, more than the example with 768" in caplog.text


def test_size_limit_of_the_folder(tmp_path):
    with pytest.raises(FeatureBudgetError, match="more than the budget"):
        cached(FeatureCacheDir(tmp_path, 100))


def with_changed(row: int, name: str, value: Any) -> list:
    found = items(data())
    found[row] = {**found[row], name: value} if value is not None else {"image": found[row]["image"]}
    return found


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        pytest.param([], {}, "data has no examples", id="empty"),
        pytest.param({"image": np.zeros((0, 8, 8, 3))}, {}, "data has no examples", id="empty-tree"),
        pytest.param((x for x in [1]), {}, "data must .*generator does not", id="generator"),
        pytest.param(
            {"image": np.zeros((3, 8, 8, 3)), "label": np.zeros(4)}, {}, "examples on axis 0", id="sizes"
        ),
        pytest.param({"pixels": np.zeros((3, 8, 8, 3))}, {}, "no array 'image'; it has 'pixels'", id="path"),
        pytest.param(
            {"image": np.zeros((3, 8, 8, 3), np.uint8)},
            {},
            r"'image' of an example is uint8 \(8, 8, 3\), but the split was made for float32 \(8, 8, 3\)",
            id="dtype",
        ),
        pytest.param(
            with_changed(17, "label", np.zeros(2, np.int32)),
            {},
            r"example 17: 'label' is int32 \(2,\), but in example 0 it is int32 \(\); pad it, or leave",
            id="shape-of-one",
        ),
        pytest.param(
            with_changed(9, "", None),
            {},
            "example 9 has no array 'label'; it has 'image'",
            id="missing-in-one",
        ),
        pytest.param([*items(data())[:5], None], {}, "example 5 is None", id="none"),
        pytest.param(None, {"keep": ("lable",)}, "no array 'lable'; it has 'image'", id="keep"),
        pytest.param(
            [{**each, "name": "a"} for each in items(data())],
            {"keep": ("name",)},
            "no array of num",
            id="text",
        ),
        pytest.param({**data(), "features": np.zeros(COUNT)}, {}, "both a feature and an array", id="name"),
        pytest.param(None, {"stored": "int4"}, "stored must be one of", id="stored"),
        pytest.param(None, {"batch_size": 0}, "batch_size must be at least 1, got 0", id="batch-size"),
    ],
)
def test_bad_data_raise(tmp_path, examples, options, message):
    with pytest.raises(ValueError, match=message):
        cached(tmp_path, examples, **options)


def test_split_without_features_raises(tmp_path):
    split, _, frozen = divided(linear, linear_params(), ("body", "head"))
    with pytest.raises(ValueError, match="the split has no features to cache"):
        cache_features(split, frozen, data(), tmp_path)


def extract_slowly(root: str) -> None:
    """Extracts features, but waits for its end in the second shard."""

    class Slow(Indexed):
        def __getitem__(self, index: int) -> Any:
            time.sleep(60 * (index == COUNT - 1))
            return super().__getitem__(index)

    module._SHARD_BYTES = 400
    cached(root, Slow(items(data())), keep=(), fingerprint="d")


@pytest.mark.extended
def test_killed_extraction_resumes(tmp_path):
    here, root = str(Path(__file__).parent), tmp_path / "killed"
    code = f"import sys; sys.path.insert(0, {here!r}); "
    code += f"import test_cache_features as t; t.extract_slowly({str(root)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "JAX_PLATFORMS": "cpu"})
    deadline = time.monotonic() + 120
    while not [*root.glob("*/shard-00000.note.json")]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = root.glob("[0-9a-f]*")
    before = (folder / "shard-00000.npy").stat().st_mtime_ns
    found = cached(root, keep=(), fingerprint="d")
    assert found.directory == folder
    assert (folder / "shard-00000.npy").stat().st_mtime_ns == before
    wanted = cached(tmp_path / "whole", keep=())
    np.testing.assert_array_equal(
        found.gather(range(COUNT))["features"], wanted.gather(range(COUNT))["features"]
    )
