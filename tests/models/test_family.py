"""Properties of all families, tested on the first network of each, with few blocks."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from transfer_jax.models import create_model, registry
from transfer_jax.models.flat_arrays import merge, set_training, split
from transfer_jax.models.registry import FAMILIES, variant_of
from transfer_jax.nn.layers import DropPath
from transfer_jax.weights.structures import shallow

FIRST = {family.name: next(iter(family.variants)) for family in FAMILIES}
WITHOUT_BRANCHES = ("densenet", "inception", "squeezenet", "vgg")
WITH_BLOCKS_OF_VIT = ("aimv2", "beit", "dinov3", "eva", "naflex", "perception_encoder", "maxvit")
IMAGES = 12


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the first network of each family by one with at most two blocks in a stage."""
    for family in FAMILIES:
        name, variant = next(iter(family.variants.items()))
        few = dataclasses.replace(variant, shape=shallow(variant.shape))
        of_few = dataclasses.replace(family, variants={**family.variants, name: few})
        monkeypatch.setitem(registry._REGISTERED, name, of_few)


@pytest.mark.parametrize("channels", [5, pytest.param(1, marks=pytest.mark.extended)])
@pytest.mark.parametrize("name", FIRST.values())
def test_images_have_any_number_of_channels(name, channels):
    model = create_model(name, 4, channels=channels, abstract_backbone=True)
    model.eval()
    graphdef, params, stats = split(model)
    side = variant_of(name).preprocessing.image_size
    images = jax.ShapeDtypeStruct((2, side, side, channels), np.float32)
    logits = jax.eval_shape(lambda arrays, x: merge(graphdef, arrays)(x), {**params, **stats}, images)
    assert logits.shape == (2, 4)


def drop_rates(block: nnx.Module) -> list[float]:
    return [part.rate for _, part in nnx.iter_graph(block) if isinstance(part, DropPath)]


def last_with_a_branch(backbone) -> tuple[str, str]:
    """Returns the last block that has a branch to drop, and the block before it: `(before, last)`."""
    names = backbone.block_names
    blocks = [getattr(backbone, name) for name in names]
    residual = [any(drop_rates(block)) and getattr(block, "residual", True) for block in blocks]
    index = max(index for index, has_branch in enumerate(residual) if has_branch)
    return names[index - 1], names[index]


def distinct(rows: np.ndarray) -> int:
    """Returns the number of different rows."""
    near = 1e-4 * np.abs(rows).max()
    return sum(all(np.abs(row - other).max() > near for other in rows[:i]) for i, row in enumerate(rows))


@functools.partial(jax.jit, static_argnums=0)
def call_block(graph, arrays, x, key):
    return nnx.merge(graph, arrays)(x, rngs=nnx.Rngs(key))


@pytest.mark.parametrize("family", sorted(set(FIRST) - {*WITHOUT_BRANCHES, *WITH_BLOCKS_OF_VIT}))
def test_branches_are_dropped_by_image_in_blocks_that_train_only(family):
    model = create_model(FIRST[family], 4, drop_path=0.5, abstract_backbone=True)
    model.eval()
    before, last = last_with_a_branch(model.backbone)
    graphdef, params, stats = split(model)
    side = variant_of(FIRST[family]).preprocessing.image_size
    features = jax.eval_shape(
        lambda arrays, x: merge(graphdef, arrays).backbone(x, stop=before),
        {**params, **stats},
        jax.ShapeDtypeStruct((1, side, side, 3), np.float32),
    )
    rng = np.random.default_rng(0)
    inputs = np.repeat(rng.normal(size=features.shape).astype(np.float32), IMAGES, axis=0)
    block = getattr(model.backbone, last)
    arrays = jax.tree.map(
        lambda leaf: rng.uniform(0.01, 0.1, leaf.shape).astype(np.float32), nnx.split(block)[1]
    )

    def run(key: int) -> np.ndarray:
        """Returns the block's outputs for copies of one image."""
        return np.asarray(call_block(nnx.split(block)[0], arrays, inputs, jax.random.key(key)))

    quiet = run(0)
    assert distinct(quiet) == 1
    set_training(model, [last], norm="frozen")
    loud, other = run(0), run(1)
    assert 2 <= distinct(loud) <= 4  # a transformer's block has two branches
    assert distinct(np.concatenate([quiet[:1], loud])) == 1 + distinct(loud)  # kept branches are scaled
    assert not np.allclose(loud, other)
    set_training(model, [], norm="frozen")
    np.testing.assert_array_equal(run(1), quiet)


@pytest.mark.parametrize("name", [FIRST[family] for family in WITHOUT_BRANCHES])
def test_networks_without_branches_have_none_to_drop(name):
    assert drop_rates(create_model(name, 4, drop_path=0.5, abstract_backbone=True).backbone) == []


@pytest.mark.parametrize("name", ["vgg11", "mobilenet_v2", "tf_efficientnet_b0", "inception_v3"])
def test_classifiers_drop_what_the_originals_do(name):
    model = create_model(name, 4, abstract_backbone=True)
    assert model.head.dropout.rate == variant_of(name).dropout > 0
    assert create_model(name, 4, dropout=0.1, abstract_backbone=True).head.dropout.rate == 0.1
