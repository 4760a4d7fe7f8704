import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from originals import CLASSES, ORIGINALS

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.registry import variant_of
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.loading import load_arrays
from transfer_jax.weights.readers import read_weights
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.specs import WeightsSpec
from transfer_jax.weights.writers import file_kind, host_arrays

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

SMALLEST = (
    *("keras_vgg16", "keras_resnet50", "keras_densenet121", "keras_inception_v3", "keras_xception"),
    *("keras_mobilenet_v2", "keras_mobilenet_v3_small", "tf_efficientnet_b0", "tf_efficientnetv2_b0"),
    "convnext_tiny",
)

FEW = ("keras_mobilenet_v3_small", "tf_efficientnet_b0")
"""The networks of `make test`."""


def made(name: str) -> tuple[SavedModel, Classifier]:
    """A network that is different in all of its arrays, and what it is saved as."""
    variant, rng = variant_of(name), np.random.default_rng(0)
    hidden = tuple(width // 64 for width in variant.hidden)
    model = create_model(name, CLASSES, hidden=hidden, abstract_backbone=True)
    _, params, stats = split(model)
    arrays = {**params, **stats}
    update(
        model, {path: jnp.asarray(rng.normal(size=array.shape), np.float32) for path, array in arrays.items()}
    )
    return SavedModel(
        model=name,
        task=SingleLabel(tuple(map(str, range(CLASSES)))),
        preprocessing=variant.preprocessing,
        hidden=hidden,
    ), model


def written(name: str, folder: Path) -> tuple[Classifier, Path]:
    saved, model = made(name)
    path = folder / "network.h5"
    path.write_bytes(file_kind("keras").write(saved, model, "keras", {}))
    return model, path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.extended) for name in SMALLEST]
)
def test_keras_files_are_read_bit_for_bit(name, tmp_path):
    model, path = written(name, tmp_path)
    again = create_model(name, CLASSES, hidden=made(name)[0].hidden, abstract_backbone=True)
    spec = WeightsSpec(name=name, model=name, address="", preprocessing=variant_of(name).preprocessing)
    load_arrays(again, read_weights(path), spec, head=True)
    found = host_arrays(again)
    for key, array in host_arrays(model).items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in SMALLEST if name != "keras_vgg16"])
def test_keras_has_the_layers_in_the_order_that_is_written(name, tmp_path):
    """And of each the arrays, by their shapes: that is all it goes by."""
    pytest.importorskip("keras", reason="keras is not installed")
    _, path = written(name, tmp_path)
    made_there: list[Any] = []

    def make() -> int:
        made_there.append(ORIGINALS[name, "keras"].make(name, variant_of(name).preprocessing.image_size))
        return 0

    jax.eval_shape(make)  # of the arrays only the shapes are wanted
    (network,) = made_there
    expected = [
        (
            layer.name,
            [tuple(weight.shape) for weight in layer.trainable_weights + layer.non_trainable_weights],
        )
        for layer in network.layers
    ]
    with h5py.File(path) as file:
        found = [
            (name.decode(), [file[name][key].shape for key in file[name].attrs["weight_names"]])
            for name in file.attrs["layer_names"]
        ]
    assert found == [(layer, shapes) for layer, shapes in expected if shapes]


def test_pixels_are_normalized_inside_as_they_are_ahead(tmp_path):
    saved, model = made("tf_efficientnet_b0")
    expected = dataclasses.replace(saved.preprocessing, mean=(51.0, 102.0, 0.0), std=(25.5, 255.0, 51.0))
    path = tmp_path / "network.h5"
    path.write_bytes(
        file_kind("keras").write(dataclasses.replace(saved, preprocessing=expected), model, "keras", {})
    )
    file = read_weights(path)
    np.testing.assert_allclose(file["normalization/mean"], [0.2, 0.4, 0.0], rtol=1e-6)
    np.testing.assert_allclose(file["normalization/variance"], [0.01, 1.0, 0.04], rtol=1e-6)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    saved, model = made("keras_mobilenet_v3_small")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"h5py is not installed; pip install 'transfer_jax\[keras\]'"):
        file_kind("keras").write(saved, model, "keras", {})
