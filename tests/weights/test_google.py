"""Google's `.npz` files, as timm reads them, or, where it does not, as Flax names the layers."""

import re
import warnings
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.placement import find_network, shapes_of
from transfer_jax.weights.readers import read_weights

NAME, BIT, MIXER, SIGLIP = (
    "vit_tiny_patch16_224",
    "resnetv2_50x1_bit",
    "mixer_s32_224",
    "vit_base_patch16_siglip_224",
)
CLASSES = 11
POSITIONS = "backbone/embed/pos_embed"


def random_arrays(size: int, name: str = NAME) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    _, params, _ = split(create_model(name, CLASSES, image_size=size, abstract_backbone=True))
    arrays = {path: rng.normal(0, 0.05, array.shape).astype(np.float32) for path, array in params.items()}
    return {path: array + path.endswith("scale") for path, array in arrays.items()}


def timm_logits(path, size: int, pixels: np.ndarray, name: str = NAME, **options) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="torch is not installed")
        timm = pytest.importorskip("timm", reason="timm is not installed")
        if name != BIT:
            options["img_size"] = size
        network = timm.create_model(name, num_classes=CLASSES, **options).eval()
        network.load_pretrained(str(path))
        with torch.inference_mode():
            return network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.extended
@pytest.mark.parametrize("size", [224, 160])
@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
@pytest.mark.parametrize("library", ["vision_transformer", "big_vision"])
def test_logits_are_those_of_timm(library, prefix, size, tmp_path):
    if library == "vision_transformer" and prefix == "params/":
        pytest.skip("timm takes this prefix for big_vision's")
    arrays = random_arrays(size)
    theirs = to_library(NAME, arrays, library)
    options = {}
    if library == "big_vision":  # whose class token has no position
        theirs["pos_embedding"] = theirs["pos_embedding"][:, 1:]
        options["no_embed_class"] = True
    path = tmp_path / "weights.npz"
    np.savez(path, allow_pickle=False, **{f"{prefix}{key}": array for key, array in theirs.items()})
    model = create_model(NAME, CLASSES, image_size=size, abstract_backbone=True)
    report = load_pretrained(model, find_spec(NAME, str(path)), head=True)
    assert bool(report.adapted) == (library == "big_vision")
    model.eval()
    pixels = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = timm_logits(path, size, pixels, **options)
    found = np.asarray(model(jnp.asarray(pixels)))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def our_logits(path, size: int, pixels: np.ndarray, name: str) -> np.ndarray:
    model = create_model(name, CLASSES, image_size=size, abstract_backbone=True)
    assert not load_pretrained(model, find_spec(name, f"{name}:{path}"), head=True).adapted
    model.eval()
    return np.asarray(model(jnp.asarray(pixels)))


def is_near(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max())


def scanned(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of all blocks in one, as big_vision writes them for a network that is scanned over."""
    kinds = dict.fromkeys(re.sub(r"encoderblock_\d+", "encoderblock_{}", key) for key in arrays)
    return {
        kind.replace("_{}", ""): np.stack([arrays[kind.format(index)] for index in range(12)])
        if "{}" in kind
        else arrays[kind]
        for kind in kinds
    }


@pytest.mark.extended
@pytest.mark.parametrize("scans", [False, True])
def test_the_tower_of_images_of_a_siglip_is_that_of_timm(scans, tmp_path):
    arrays = to_library(SIGLIP, random_arrays(64, SIGLIP), "big_vision")
    assert arrays["MAPHead_0/MultiHeadDotProductAttention_0/value/kernel"].shape == (768, 12, 64)
    path, texts = tmp_path / "weights.npz", {"params/txt/head/bias": np.zeros(3), "params/t": np.zeros(1)}
    theirs = {f"params/img/{key}": array for key, array in (scanned(arrays) if scans else arrays).items()}
    np.savez(path, allow_pickle=False, **theirs, **texts)
    pixels = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    assert is_near(our_logits(path, 64, pixels, SIGLIP), timm_logits(path, 64, pixels, SIGLIP))


@pytest.mark.extended
def test_bit_is_that_of_timm_in_the_names_of_its_paper(tmp_path):
    theirs = to_library(BIT, random_arrays(64, BIT), "big_transfer")
    assert theirs["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"].shape == (1, 1, 64, 256)
    assert theirs["resnet/head/conv2d/kernel"].shape == (1, 1, 2048, CLASSES)
    path = tmp_path / "weights.npz"
    np.savez(path, allow_pickle=False, **theirs)
    pixels = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    assert is_near(our_logits(path, 64, pixels, BIT), timm_logits(path, 64, pixels, BIT))


def test_bit_in_big_vision_is_that_of_its_paper_with_other_names():
    arrays = random_arrays(64, BIT)
    theirs = to_library(BIT, arrays, "big_vision")
    renamed = {}
    for key, array in to_library(BIT, arrays, "big_transfer").items():
        key = key.removeprefix("resnet/").replace("gamma", "scale").replace("beta", "bias")
        key = re.sub("^group_norm", "norm-pre-head", key).replace("head/conv2d", "head")
        key = key.replace("a/proj/standardized_conv2d", "conv_proj")
        key = key.replace("root_block/standardized_conv2d", "root_block/conv_root")
        key = re.sub(
            "([abc])/(group_norm|standardized_conv2d)",
            lambda found: f"{'gn' if found[2] == 'group_norm' else 'conv'}{'abc'.index(found[1]) + 1}",
            key,
        )
        norms = "gn" in key or "norm" in key
        renamed[key] = array[None, None, None] if norms else array[0, 0] if key == "head/kernel" else array
    assert {key: array.shape for key, array in theirs.items()} == {k: a.shape for k, a in renamed.items()}
    for key, array in theirs.items():
        np.testing.assert_array_equal(array, renamed[key], err_msg=key)


class Perceptron(flax.linen.Module):
    hidden: int

    @flax.linen.compact
    def __call__(self, x):
        y = flax.linen.gelu(flax.linen.Dense(self.hidden)(x), approximate=False)
        return flax.linen.Dense(x.shape[-1])(y)


class MixerBlock(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        turned = flax.linen.LayerNorm()(x).transpose(0, 2, 1)
        x = x + Perceptron(256, name="token_mixing")(turned).transpose(0, 2, 1)
        return x + Perceptron(2048, name="channel_mixing")(flax.linen.LayerNorm()(x))


class Mixer(flax.linen.Module):
    """The smallest as the paper describes it; numbers behind names are Flax's."""

    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.Conv(512, (32, 32), strides=32, name="stem")(x).reshape(len(x), -1, 512)
        for _ in range(8):
            x = MixerBlock()(x)
        x = flax.linen.LayerNorm(name="pre_head_layer_norm")(x).mean(axis=1)
        return flax.linen.Dense(CLASSES, name="head")(x)


@pytest.mark.parametrize("library", ["vision_transformer", "big_vision"])
def test_mixer_has_the_names_that_flax_gives(library, tmp_path):
    theirs = to_library(MIXER, random_arrays(96, MIXER), library)
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **theirs)
    pixels = np.random.default_rng(1).normal(size=(2, 96, 96, 3)).astype(np.float32)
    shapes = jax.eval_shape(Mixer().init, jax.random.key(0), pixels)["params"]
    flat: dict[str, Any] = flatten_dict(shapes, sep="/")
    assert {key: leaf.shape for key, leaf in flat.items()} == {k: a.shape for k, a in theirs.items()}
    tree = unflatten_dict(theirs, sep="/")
    expected = np.asarray(jax.jit(Mixer().apply)({"params": tree}, pixels))
    assert is_near(our_logits(tmp_path / "weights.npz", 96, pixels, MIXER), expected)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        (NAME, "vision_transformer"),
        (NAME, "big_vision"),
        (SIGLIP, "big_vision"),
        (BIT, "big_transfer"),
        (BIT, "big_vision"),
        (MIXER, "vision_transformer"),
    ],
)
def test_arrays_go_there_and_come_back_bit_for_bit(name, library, tmp_path):
    arrays = random_arrays(224, name)
    theirs = to_library(name, arrays, library)
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **theirs)
    read = read_weights(tmp_path / "weights.npz")
    assert {key: array.shape for key, array in theirs.items()} == {k: i.shape for k, i in read.infos.items()}
    key_map = find_network(name, shapes_of(arrays), shapes_of(read), arrays).key_map
    assert key_map.library == library
    ours = {path: key_map.import_array(path, [read[key] for key in key_map.keys(path)]) for path in arrays}
    for path, array in arrays.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    again = to_library(name, ours, library)
    for key, array in theirs.items():
        assert again[key].tobytes() == array.tobytes()


def test_shapes_are_those_of_the_published_files():
    arrays = to_library(NAME, random_arrays(224), "vision_transformer")
    inside = "Transformer/encoderblock_3/MultiHeadDotProductAttention_1"
    assert arrays[f"{inside}/query/kernel"].shape == (192, 3, 64)
    assert arrays[f"{inside}/query/bias"].shape == (3, 64)
    assert arrays[f"{inside}/out/kernel"].shape == (3, 64, 192)
    assert arrays[f"{inside}/out/bias"].shape == (192,)
    assert arrays["embedding/kernel"].shape == (16, 16, 3, 192)
    assert arrays["Transformer/posembed_input/pos_embedding"].shape == (1, 197, 192)


def test_half_precision_without_a_name(tmp_path):
    """NumPy saves the bytes of bfloat16 as a void of two."""
    theirs = to_library(NAME, random_arrays(224), "vision_transformer")
    rounded = {key: array.astype(ml_dtypes.bfloat16) for key, array in theirs.items()}
    path = tmp_path / "weights.npz"
    np.savez(path, allow_pickle=False, **{key: array.view("V2") for key, array in rounded.items()})
    model = create_model(NAME, CLASSES, abstract_backbone=True)
    assert load_pretrained(model, find_spec(NAME, str(path)), head=True).complete
    _, params, _ = split(model)
    kernel = params["backbone/embed/patch/kernel"]
    np.testing.assert_array_equal(kernel, rounded["embedding/kernel"].astype(np.float32))


def test_positions_for_other_images_and_a_class_token_without(tmp_path):
    theirs = to_library(NAME, random_arrays(224), "big_vision")
    theirs["pos_embedding"] = theirs["pos_embedding"][:, 1:]
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **theirs)
    model = create_model(NAME, CLASSES, image_size=96, abstract_backbone=True)
    report = load_pretrained(model, find_spec(NAME, str(tmp_path / "weights.npz")), head=True)
    assert report.adapted == (f"{POSITIONS} resampled from 14x14 to 6x6, with zeros for the class token",)
    assert (np.asarray(split(model)[1][POSITIONS])[:, 0] == 0).all()


def test_our_own_names_are_a_library_too():
    arrays = random_arrays(224)
    assert to_library(NAME, arrays, "transfer_jax").keys() == arrays.keys()
    assert find_network(NAME, shapes_of(arrays), shapes_of(arrays), arrays).key_map.library == "transfer_jax"
    key_map = KeyMap(NAME, "transfer_jax")
    for path, array in arrays.items():
        assert key_map.import_array(path, [array]) is array
