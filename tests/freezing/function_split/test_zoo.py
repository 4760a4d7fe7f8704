"""The split of all networks, whose blocks it does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features.prefix import FeatureShapes
from transfer_jax.freezing import boundary, labels, top
from transfer_jax.freezing.function_split import split_frozen
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge
from transfer_jax.models.flat_arrays import split as split_model
from transfer_jax.models.registry import FAMILIES, variant_of

FIRST = [next(iter(family.variants)) for family in FAMILIES]
MORE = {"vit_small_patch16_dinov3": 4 * 201}
"""Bytes by which features exceed those of the block: one number for each of DINOv3's tokens."""


@pytest.mark.extended
@pytest.mark.parametrize("name", FIRST)
def test_features_are_no_larger_than_those_of_blocks(name):
    model = create_model(name, 3, abstract_backbone=True)
    model.eval()
    graphdef, params, statistics = split_model(model)
    names, size = model.backbone.block_names, variant_of(name).preprocessing.image_size
    found = labels(params, top(1), names)

    def function(params, state, batch, key):
        return merge(graphdef, {**params, **state})(batch["image"]), state

    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    split = split_frozen(function, params, found, {"image": image}, state=statistics)
    last = boundary(found, names)
    assert last is not None
    shape = FeatureShapes(graphdef, {**params, **statistics}, size)[last]["features"].shape
    assert split.mixing == ()
    assert split.inputs == ()
    assert 0 < split.cost.bytes <= 4 * np.prod(shape) + MORE.get(name, 0)
    assert split.cost.prefix_flops > 0
