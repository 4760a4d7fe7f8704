import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax import create_model, register_model
from transfer_jax.features import FeatureShapes
from transfer_jax.models.flat_arrays import merge, split, with_training


@pytest.fixture
def backbone(model):
    register_model("mine", model)
    found = create_model("mine", 3)
    found.eval()
    return found.backbone


def test_features_at_each_boundary_give_the_outputs(backbone, images):
    whole = backbone(images)
    for name in backbone.block_names:
        features = backbone(images, stop=name)
        np.testing.assert_array_equal(backbone(features, start=name), whole, err_msg=name)


def test_features_are_several_arrays_where_the_program_branches(images):
    from networks_of_others import function_model

    register_model("branches", function_model())
    backbone = create_model("branches", 3).backbone
    features = backbone(images, stop="stem")
    assert features.shape == (4, 8)
    features = backbone(images, stop="left")
    assert isinstance(features, dict)
    assert {name: each.shape for name, each in features.items()} == {
        "features_0": (4, 8),
        "features_1": (4, 6),
    }
    assert backbone(images, stop="right").shape == (4, 12)


def test_feature_shapes_are_those_of_the_features(backbone, images):
    register_name = "mine"
    graphdef, params, stats = split(
        create_model(register_name, 3, abstract_backbone=True, abstract_head=True)
    )
    shapes = FeatureShapes(graphdef, {**params, **stats}, 16)
    assert [*shapes] == [*backbone.block_names]
    for name in shapes:
        features = backbone(images, stop=name)
        arrays = features if isinstance(features, dict) else {"features": features}
        assert {key: each.shape for key, each in shapes[name].items()} == {
            key: each.shape[1:] for key, each in arrays.items()
        }


def test_training_blocks_drop_and_update_statistics(images):
    from networks_of_others import nnx_model

    register_model("nnx", nnx_model())
    model = create_model("nnx", 3)
    graphdef, params, stats = split(model)
    arrays = {**params, **stats}
    features = model.backbone(images, stop="features.1")

    def run(graphdef, key):
        merged = merge(graphdef, arrays)
        outputs = merged.backbone(features, start="features.1", rngs=nnx.Rngs(key))
        return outputs, split(merged)[2]

    training = with_training(graphdef, arrays, ["features.2", "head"], norm="train")
    first, after = run(training, jax.random.key(0))
    assert not np.array_equal(first, run(training, jax.random.key(1))[0])  # Dropout.
    moved = {path for path in stats if not np.array_equal(stats[path], after[path])}
    assert moved == {"backbone/features.2/norm/mean", "backbone/features.2/norm/var"}
    frozen = with_training(graphdef, arrays, ["features.2", "head"], norm="frozen")
    _, after = run(frozen, jax.random.key(0))
    assert all(np.array_equal(stats[path], after[path]) for path in stats)
    still = with_training(graphdef, arrays, ["head"], norm="train")
    outputs, _ = run(still, jax.random.key(0))
    np.testing.assert_array_equal(outputs, model.backbone(images))


def test_activations_from_the_images_and_from_features(backbone, images):
    names = backbone.block_names
    whole = backbone.activations(images, None, names)
    assert [*whole] == [*names]
    start = names[0]
    above = backbone.activations(backbone(images, stop=start), start, names)
    assert [*above] == [*names[1:]]
    np.testing.assert_array_equal(above["pre_logits"], whole["pre_logits"])


def test_the_program_hash_covers_the_operations_and_not_the_values(model, backbone):
    first = backbone.block_names[0]
    register_model("other", model)
    other = create_model("other", 3).backbone
    assert backbone.program_hashes(first) == other.program_hashes(first)
    assert backbone.program_hashes(first) != backbone.program_hashes("pre_logits")
    graphdef, params, stats = split(create_model("mine", 3))
    moved = merge(graphdef, {**{path: x + 1 for path, x in params.items()}, **stats}).backbone
    assert moved.program_hashes(first) == backbone.program_hashes(first)


def test_precision(backbone, images):
    graphdef, params, stats = split(create_model("mine", 3))
    cast = {path: x.astype(jnp.bfloat16) for path, x in params.items()}
    name = backbone.block_names[0]
    run = jax.jit(lambda x: merge(graphdef, {**cast, **stats}).backbone(x, stop=name))
    features = run(images.astype(jnp.bfloat16))
    assert jax.tree.leaves(features)[0].dtype == jnp.bfloat16
