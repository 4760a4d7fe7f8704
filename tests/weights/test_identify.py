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
from transfer_jax.weights.structures import backbone_shapes, distinct_structures, shallow, shallow_shapes

HEAD = ("head/classifier/kernel", "head/classifier/bias")


def published(model: str, library: str, **setting) -> dict[str, np.ndarray]:
    """The arrays of a network, without values, as a file of a library has them; with any classifier."""
    key_map = KeyMap(model, library)
    arrays = {
        path: array
        for path, array in empty(model, **setting).items()
        if key_map.keys(path) or not path.startswith("head/")
    }
    return to_library(model, arrays, library)


def empty(model: str, **setting) -> dict[str, np.ndarray]:
    """The arrays of a network, without values, by our names."""
    _, params, stats = split(create_model(model, 10, abstract_backbone=True, abstract_head=True, **setting))
    return {path: np.broadcast_to(np.float32(0), array.shape) for path, array in {**params, **stats}.items()}


def named(family: Family, library: str) -> list[str]:
    """A network for each kind of names that a family has in a library."""
    found: dict[frozenset[str], str] = {}
    for model in distinct_structures(family):
        key_map = KeyMap(model, library, shape=shallow(variant_of(model).shape))
        if all(map(key_map.keys, shallow_shapes(model))):
            paths = (*shallow_shapes(model), *HEAD)
            kinds = (re.sub(r"\d+", "", key) for path in paths for key in key_map.keys(path))
            found.setdefault(frozenset(kinds), model)
    return [*found.values()]


def shapes(model: str, library: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in a file of a library, without copies; some have gigabytes."""
    key_map = KeyMap(model, library)
    head = {path: value for path, value in empty(model).items() if path.startswith("head/")}
    backbone = {path: np.broadcast_to(np.float32(0), shape) for path, shape in backbone_shapes(model).items()}
    with mock.patch("numpy.ascontiguousarray", np.asarray):
        return {
            key: array.shape
            for path, value in {**backbone, **head}.items()
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
    for model in found:
        arrays = shapes(model, library)
        nearest = closest_families(arrays)
        assert nearest[0].similarity >= 0.5  # the keys of a classifier may be as many kinds
        assert family.name in [other.family for other in nearest if other.similarity == nearest[0].similarity]
        assert len(nearest) <= 3
        fitting, of = matching_models(arrays, nearest)
        assert model in fitting
        theirs, ours = KeyMap(model, library), KeyMap(model, of)
        assert all(theirs.keys(path) == ours.keys(path) for path in backbone_shapes(model))


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
