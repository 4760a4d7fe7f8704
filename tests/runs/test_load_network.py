import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.config import TrainConfig
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.weights.key_mapping import to_library

TINY = "efficientnet_lite_tiny"


def config(folder, **changes) -> TrainConfig:
    return TrainConfig(**{"images": str(folder), "model": TINY, "weights": "none", **changes})


def test_a_run_has_all_that_training_needs(image_folder, tmp_path):
    run = load_network(resolve(config(image_folder, hidden=(5,), seed=3)), tmp_path)
    assert (len(run.train), len(run.evaluation)) == (36, 12)
    assert run.train.class_names == ("blue", "green", "red")
    assert run.evaluation.counts() == {"blue": 4, "green": 4, "red": 4}
    assert run.preprocessing.image_size == 32
    assert run.arrays["head/hidden/0/kernel"].shape == (1280, 5)
    assert run.arrays["head/classifier/kernel"].shape == (5, 3)
    assert set(run.params) < set(run.arrays)
    assert all(isinstance(array, jax.Array) for array in run.arrays.values())
    assert not [*tmp_path.iterdir()]


def test_images_may_be_given(toy_images, tmp_path):
    run = load_network(resolve(config("mine"), dataset=toy_images), tmp_path)
    assert run.train.class_names == toy_images.class_names
    assert sorted([*run.train.names, *run.evaluation.names]) == sorted(toy_images.names)
    with pytest.raises(ValueError, match="mine"):
        load_network(resolve(config("mine")), tmp_path)


def test_weights_of_a_file_fill_the_backbone_and_not_the_head(image_folder, tmp_path):
    _, params, stats = split(create_model(TINY, 9, seed=8))
    arrays = {**params, **stats}
    torch = to_library(TINY, arrays)
    save_file(torch, tmp_path / "weights.safetensors")
    run = load_network(resolve(config(image_folder, weights=str(tmp_path / "weights.safetensors"))), tmp_path)
    for path, array in arrays.items():
        if not path.startswith("head/"):
            np.testing.assert_array_equal(run.arrays[path], array, err_msg=path)
    assert run.arrays["head/classifier/bias"].shape == (3,)


def test_the_seed_decides_split_and_head(image_folder, tmp_path):
    first, again, other = (load_network(resolve(config(image_folder, seed=s)), tmp_path) for s in (0, 0, 1))
    assert first.train.names == again.train.names != other.train.names
    path = "head/classifier/kernel"
    np.testing.assert_array_equal(first.arrays[path], again.arrays[path])
    assert not np.array_equal(first.arrays[path], other.arrays[path])


def test_more_parts_than_images(image_folder, tmp_path):
    with pytest.raises(ValueError, match="36 training images cannot be split into accumulate=40 parts"):
        load_network(resolve(config(image_folder, batch_size=40, accumulate=40)), tmp_path)
