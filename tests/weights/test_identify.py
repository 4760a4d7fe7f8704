import functools
import re
from unittest import mock

import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.family import Family
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import FAMILIES, variant_of
from transfer_jax.weights.identify import closest_families, matching_models
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.loading import WeightsMismatchError, load_arrays
from transfer_jax.weights.specs import WeightsSpec


def published(model: str, library: str, **setting) -> dict[str, np.ndarray]:
    """The arrays of a network, without values, as a file of a library has them; with any classifier."""
    key_map = KeyMap(model, library)
    arrays = {
        path: array
        for path, array in empty(model, **setting).items()
        if key_map.keys(path) or not path.startswith("head/")
    }
    return to_library(model, arrays, library)


@functools.cache
def empty(model: str, **setting) -> dict[str, np.ndarray]:
    """The arrays of a network, without values, by our names."""
    _, params, stats = split(create_model(model, 10, abstract_backbone=True, abstract_head=True, **setting))
    return {path: np.broadcast_to(np.float32(0), array.shape) for path, array in {**params, **stats}.items()}


def named(family: Family, library: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """A network for each kind of names that a family has in a library, and the shapes of its arrays."""
    found: dict[frozenset[str], str] = {}
    for model in family.variants:
        key_map = KeyMap(model, library)
        keys = {path: key_map.keys(path) for path in empty(model)}
        if all(of_path or path.startswith("head/") for path, of_path in keys.items()):
            kinds = (re.sub(r"\d+", "", key) for of_path in keys.values() for key in of_path)
            found.setdefault(frozenset(kinds), model)
    return {model: shapes(model, library) for model in found.values()}


def shapes(model: str, library: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in a file of a library, without copies; some have gigabytes."""
    key_map = KeyMap(model, library)
    with mock.patch("numpy.ascontiguousarray", np.asarray):
        return {
            key: array.shape
            for path, value in empty(model).items()
            for key, array in key_map.export_array(path, value).items()
        }


FIRST = ("efficientnet_lite", "resnet", "swin")
"""The families of `make test`."""


@pytest.mark.parametrize(
    ("family", "library"),
    [
        pytest.param(family, library, marks=pytest.mark.extended if index or family.name not in FIRST else ())
        for family in FAMILIES
        for index, library in enumerate(family.layer_names)
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_family_is_recognized_in_every_naming(family, library):
    found = named(family, library)
    assert found
    for model, arrays in found.items():
        nearest = closest_families(arrays)
        assert nearest[0].similarity >= 0.5  # the keys of a classifier may be as many kinds
        assert family.name in [other.family for other in nearest if other.similarity == nearest[0].similarity]
        assert len(nearest) <= 3
        fitting, of = matching_models(arrays, nearest)
        # Antialiasing has no parameters, and only one family is searched.
        assert {model, re.sub("(resnet|resnext)aa", r"\1", model)} & {*fitting}
        theirs, ours = KeyMap(model, library), KeyMap(model if model in fitting else fitting[0], of)
        assert all(theirs.keys(path) == ours.keys(path) for path in empty(model) if "head/" not in path)


@pytest.mark.parametrize(
    ("model", "library", "setting"),
    [
        ("resnet50", "torchvision", {}),
        ("vgg16", "torchvision", {}),
        ("vit_small_patch16_224", "timm", {"image_size": 96}),
        ("vit_small_patch14_dinov2", "transformers-base", {"image_size": 224}),
        ("vit_base_patch32_clip_224", "transformers", {}),
        ("siglip_base_patch16_224", "timm", {}),
        ("swin_tiny_patch4_window7_224", "transformers-5", {}),
    ],
)
def test_shapes_tell_the_network(model, library, setting):
    arrays = published(model, library, **setting)
    shapes = {key: array.shape for key, array in arrays.items()}
    fitting, _ = matching_models(shapes, closest_families(shapes))
    assert model in fitting
    other = dict(list(shapes.items())[1:])
    assert model not in matching_models(other, closest_families(shapes))[0]


def test_nothing_is_like_a_teapot():
    assert closest_families(["teapot"]) == []


def test_the_wrong_family_is_named_with_the_nearest():
    model = create_model("efficientnet_lite_tiny", 4)
    source = published("resnet18", "torchvision")
    preprocessing = variant_of("resnet18").preprocessing
    spec = WeightsSpec(name="mine", model="efficientnet_lite_tiny", address="x", preprocessing=preprocessing)
    with pytest.raises(WeightsMismatchError, match=r"missing in the file: .*; the file fits resnet18$"):
        load_arrays(model, source, spec)
