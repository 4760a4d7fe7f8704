import jax
import numpy as np
import pytest

from transfer_jax.models import create_model, model_names
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import FAMILIES, variant_of

TINY = "efficientnet_lite_tiny"


def test_names_and_image_sizes():
    sizes = {name: variant_of(name).preprocessing.image_size for name in model_names()}
    lite = {f"efficientnet_lite{i}": size for i, size in enumerate((224, 240, 260, 280, 300))}
    assert sizes.items() >= {**lite, TINY: 32}.items()


@pytest.mark.parametrize("function", [variant_of, lambda name: create_model(name, 2)])
def test_errors_suggest_the_closest_name(function):
    with pytest.raises(ValueError, match=r"unknown model 'efficientnet-lite0'.*efficientnet_lite0"):
        function("efficientnet-lite0")


def test_abstract_backbones_have_shapes_and_a_real_head():
    _, real, _ = split(create_model(TINY, 5))
    _, abstract, _ = split(create_model(TINY, 5, abstract_backbone=True))
    assert {path: (x.shape, x.dtype) for path, x in abstract.items()} == {
        path: (x.shape, x.dtype) for path, x in real.items()
    }
    for path, x in abstract.items():
        assert isinstance(x, jax.Array if path.startswith("head/") else jax.ShapeDtypeStruct), path


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_nothing_of_an_abstract_model_is_allocated(family):
    model = create_model(next(iter(family.variants)), 5, abstract_backbone=True, abstract_head=True)
    _, params, stats = split(model)
    for path, x in {**params, **stats}.items():
        assert isinstance(x, jax.ShapeDtypeStruct), path


def test_the_seed_decides_the_parameters():
    first, again, other = (split(create_model(TINY, 5, seed=seed))[1] for seed in (0, 0, 1))
    for path in first:
        np.testing.assert_array_equal(first[path], again[path])
    for path in ("backbone/stem/conv/kernel", "head/classifier/kernel"):
        assert not np.allclose(first[path], other[path])


def test_head_options():
    assert create_model("efficientnet_lite0", 2, abstract_backbone=True).head.dropout.rate == 0.2
    model = create_model(TINY, 7, hidden=(6,), dropout=0.3, abstract_backbone=True)
    assert model.head.dropout.rate == 0.3
    shapes = {path: x.shape for path, x in split(model)[1].items() if path.startswith("head/")}
    assert shapes == {
        "head/hidden/0/kernel": (1280, 6),
        "head/hidden/0/bias": (6,),
        "head/classifier/kernel": (6, 7),
        "head/classifier/bias": (7,),
    }
