import re

import pytest

from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.structures import (
    backbone_shapes,
    distinct_structures,
    first_shapes,
    shallow,
    shallow_shapes,
)


@pytest.mark.parametrize(
    ("model", "library"),
    [
        ("resnet18", "timm"),
        ("vit_tiny_patch16_224", "transformers"),
        ("tf_efficientnet_b0", "timm"),
        ("convnext_atto", "torchvision"),
        *(
            pytest.param(model, "timm", marks=pytest.mark.extended)
            for model in ("hiera_tiny_224", "swinv2_tiny_window8_256", "maxvit_nano_rw_256", "fastvit_t8")
        ),
    ],
)
def test_a_shallow_network_has_the_names_and_the_first_block_of_the_whole_one(model, library):
    def names(shapes, **options):
        key_map = KeyMap(model, library, **options)
        return {re.sub(r"\d+", "", key) for path in shapes for key in key_map.keys(path)}

    whole, few = backbone_shapes(model), shallow_shapes(model)
    assert names(few, shape=shallow(variant_of(model).shape)) == names(whole)
    assert len(few) <= len(whole)
    assert first_shapes(model).items() <= whole.items()
    assert 0 < len(first_shapes(model)) < len(few)


def test_depth_does_not_make_a_structure():
    found = distinct_structures(family_of("resnet50"))
    assert {"resnet18", "resnet50"} <= {*found}
    assert not {"resnet101", "resnet152"} & {*found}
    assert shallow(variant_of("resnet152").shape) == shallow(variant_of("resnet101").shape)
