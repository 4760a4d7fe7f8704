import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from flax import nnx

from transfer_jax.data import eval_transform, from_examples, load_dataset
from transfer_jax.features import FeatureCache
from transfer_jax.models import Preprocessing, create_model, family, linen_function, registry
from transfer_jax.own_models import own_model, register_model
from transfer_jax.runs.extract_features import extract_features

HALF = Preprocessing(image_size=16, crop_fraction=1.0, mean=family.HALF, std=family.HALF)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), np.uint8)
FLOATS = np.asarray(jax.random.normal(jax.random.key(0), (5, 16, 16, 3)))


class Network(nnx.Module):
    """A convolution, a normalization, dropout and a head, in training mode."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.norm(self.conv(x))).mean((1, 2))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="last")(nn.relu(nn.Dense(4, name="first")(x.reshape(len(x), -1))))


@pytest.fixture
def model(toy):
    return create_model("toy", 2)


def linen():
    module = Linen()
    return module, module.init(jax.random.key(0), FLOATS)


def test_our_network_gives_the_outputs_of_its_blocks(model):
    found = extract_features(model, PIXELS, "all", preprocessing=HALF, pool=None, batch_size=2)
    assert tuple(found) == model.backbone.block_names
    assert all(len(each) == 5 and isinstance(each, np.ndarray) for each in found.values())
    model.eval()
    images = np.stack([eval_transform(each, HALF) for each in PIXELS])
    x, start = HALF.normalize(jnp.asarray(images)), None
    for name, value in found.items():
        x, start = model.backbone(x, start=start, stop=name), name
        np.testing.assert_allclose(value, x, rtol=1e-4, atol=1e-5)


def test_features_are_pooled(model):
    whole = extract_features(model, PIXELS, "all", preprocessing=HALF, pool=None)
    pooled = extract_features(model, PIXELS, "all", preprocessing=HALF)
    for name, value in pooled.items():
        each = whole[name]
        np.testing.assert_allclose(value, each.mean(tuple(range(1, each.ndim - 1))), rtol=1e-5, atol=1e-6)
    largest = extract_features(model, PIXELS, "all", preprocessing=HALF, pool=lambda x: x.reshape(len(x), -1))
    assert {name: each.shape for name, each in largest.items()} == {
        name: (5, each[0].size) for name, each in whole.items()
    }


def test_default_is_what_the_head_reads(model):
    assert [*extract_features(model, PIXELS, preprocessing=HALF)] == ["pre_logits"]
    assert [*extract_features(Network(), FLOATS)] == ["norm"]
    own = own_model(Network(), head="head", preprocessing=HALF)
    images = extract_features(own, PIXELS)
    assert [each.shape for each in images.values()] == [(5, 8)]


def test_registered_model(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})
    own = own_model(Network(), head="head", preprocessing=HALF)
    register_model("mine", own)
    expected = extract_features(own, PIXELS, "conv", pool=None)
    found = extract_features("mine", PIXELS, "conv", pool=None)
    np.testing.assert_allclose(found["conv"], expected["conv"], rtol=1e-5, atol=1e-6)


def test_model_of_someone_else_is_in_inference_mode():
    network = Network()
    found = extract_features(network, FLOATS, "all", batch_size=2)
    assert [*found] == ["conv", "norm", "head"]
    assert network.dropout.deterministic is False  # The model itself stays as it is.
    network.eval()
    np.testing.assert_allclose(found["head"], network(FLOATS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [linen, lambda: linen_function(*linen())], ids=["module", "function"])
def test_linen_module(model):
    module, variables = linen()
    found = extract_features(model(), FLOATS, "all")
    np.testing.assert_allclose(
        found["last"], np.asarray(module.apply(variables, FLOATS)), rtol=1e-5, atol=1e-6
    )


EXAMPLES = {
    "array": FLOATS,
    "tree": {"image": FLOATS, "name": np.array(list("abcde"))},
    "dictionaries": [{"image": each, "name": "a"} for each in FLOATS],
    "arrays": [*FLOATS],
    "sequence": types.SimpleNamespace,
}


class Sequence:
    def __len__(self):
        return len(FLOATS)

    def __getitem__(self, index):
        return {"image": FLOATS[index]}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_examples_of_any_kind(kind):
    examples = Sequence() if kind == "sequence" else EXAMPLES[kind]
    expected = extract_features(linen(), FLOATS)
    np.testing.assert_array_equal(extract_features(linen(), examples)["first"], expected["first"])


def test_images_for_a_model_of_someone_else(image_folder):
    dataset = load_dataset(str(image_folder))
    whole = extract_features(Network(), dataset, preprocessing=HALF)
    by_path = extract_features(Network(), str(image_folder), preprocessing=HALF)
    np.testing.assert_array_equal(whole["norm"], by_path["norm"])
    with pytest.raises(ValueError, match="the size and the normalization of the images of this model are"):
        extract_features(Network(), dataset)


def test_folder_without_classes(image_folder, model):
    folder = next(path for path in sorted(image_folder.iterdir()) if path.is_dir())
    files = sorted(str(path) for path in folder.iterdir())
    found = extract_features(model, folder, preprocessing=HALF)
    assert len(found["pre_logits"]) == len(files)
    listed = extract_features(model, files[:2], preprocessing=HALF)
    assert len(listed["pre_logits"]) == 2


def test_examples_that_are_no_images():
    source = [{"x": np.full(4, index, np.float32), "y": index % 2} for index in range(6)]
    dataset = from_examples(source, inputs=("x",), label="y")

    def function(params, state, batch, key):
        return batch["x"] @ params["a"]["w"] @ params["b"]["w"]

    params = {"a": {"w": np.ones((4, 3), np.float32)}, "b": {"w": np.ones((3, 2), np.float32)}}
    found = extract_features((function, params, None), dataset)
    np.testing.assert_allclose(found["a"], 4 * np.arange(6)[:, None] * np.ones(3))


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", "bfloat16"), (None, "float32")])
def test_precision(model, precision, dtype):
    for network, images in ((model, PIXELS), (Network(), FLOATS)):
        found = extract_features(
            network,
            images,
            preprocessing=HALF if network is model else None,
            precision=precision,
            pool=None,
        )
        assert {str(each.dtype) for each in found.values()} == {dtype}


def test_features_on_disk_are_used_again(model, tmp_path):
    arguments = (model, PIXELS, "all")
    expected = extract_features(*arguments, preprocessing=HALF)
    cache = extract_features(*arguments, preprocessing=HALF, directory=tmp_path)
    assert isinstance(cache, FeatureCache)
    found = cache.gather(np.arange(5))
    assert [*found] == [*expected]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    again = extract_features(*arguments, preprocessing=HALF, directory=tmp_path)
    assert again.directory == cache.directory
    changed = [
        extract_features(model, PIXELS, "all", preprocessing=HALF, pool=None, directory=tmp_path),
        extract_features(model, PIXELS[:4], "all", preprocessing=HALF, directory=tmp_path),
        extract_features(model, PIXELS, preprocessing=HALF, directory=tmp_path),
    ]
    assert len({cache.directory, *(each.directory for each in changed)}) == 4


def test_features_of_a_function_on_disk(tmp_path):
    expected = extract_features(Network(), FLOATS, "all")
    cache = extract_features(Network(), FLOATS, "all", directory=tmp_path)
    for name, value in cache.gather(np.arange(5)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "efficientnet_lite",
            {},
            "unknown model 'efficientnet_lite'; the closest names are efficientnet_lite",
        ),
        ("runs/nothing", {}, "no trained model in"),
        (None, {"at": "stam", "preprocessing": HALF}, "no block 'stam'; did you mean stem"),
        (None, {}, "the preprocessing of this classifier is unknown; pass preprocessing="),
        (None, {"pool": "max"}, "pool must be 'mean', None or a function, got 'max'"),
        (None, {"precision": "int8"}, "precision must be one of"),
        (None, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_mistakes_are_errors(toy, model, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        extract_features(model or create_model("toy", 2), PIXELS, **options)


def test_other_objects_are_no_models():
    with pytest.raises(TypeError, match=r"model must be a network's name, .*; got int"):
        extract_features(3, PIXELS)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (FLOATS, "images must be uint8 in 0..255"),
        ({"a": PIXELS}, "images must be a folder, files, an ImageDataset or uint8 pixels"),
        ([], "images must be a folder, files, an ImageDataset or uint8 pixels"),
    ],
)
def test_other_things_are_no_images_of_our_networks(model, images, message):
    with pytest.raises(ValueError, match=message):
        extract_features(model, images, preprocessing=HALF)


def test_too_many_features_for_the_memory(model, monkeypatch):
    free = types.SimpleNamespace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(ValueError, match=r"need 0\.0 GB, and 0\.0 GB are free; pool them .* directory="):
        extract_features(model, PIXELS, "all", pool=None, preprocessing=HALF)
