"""Google's `.npz` files of vision transformers, as timm reads them."""

import warnings

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.functional import split
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.naming import Naming, detect, to_library
from transfer_jax.weights.readers import read_weights

NAME, CLASSES = "vit_tiny_patch16_224", 11
POSITIONS = "backbone/embed/pos_embed"


def random_arrays(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    _, params, _ = split(create_model(NAME, CLASSES, image_size=size, abstract_backbone=True))
    arrays = {path: rng.normal(0, 0.05, array.shape).astype(np.float32) for path, array in params.items()}
    return {path: array + path.endswith("scale") for path, array in arrays.items()}


def timm_logits(path, size: int, pixels: np.ndarray, **options) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        timm = pytest.importorskip("timm")
        network = timm.create_model(NAME, num_classes=CLASSES, img_size=size, **options).eval()
        network.load_pretrained(str(path))
        with torch.inference_mode():
            return network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()


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


@pytest.mark.parametrize("library", ["vision_transformer", "big_vision"])
def test_arrays_go_there_and_come_back_bit_for_bit(library, tmp_path):
    arrays = random_arrays(224)
    theirs = to_library(NAME, arrays, library)
    np.savez(tmp_path / "weights.npz", allow_pickle=False, **theirs)
    read = read_weights(tmp_path / "weights.npz")
    assert {key: array.shape for key, array in theirs.items()} == {k: i.shape for k, i in read.infos.items()}
    naming = detect(NAME, arrays, read)
    assert naming.library == library
    ours = {path: naming.take(path, [read[key] for key in naming.keys(path)]) for path in arrays}
    for path, array in arrays.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    again = to_library(NAME, ours, library)
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
    assert detect(NAME, arrays, arrays).library == "transfer_jax"
    naming = Naming(NAME, "transfer_jax")
    for path, array in arrays.items():
        assert naming.take(path, [array]) is array
