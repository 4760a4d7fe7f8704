import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.diagnostics.attention_rollout import (
    attention_weights,
    is_transformer,
    make_rollout,
    rollout,
)
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.models.siglip import AttentionPool
from transfer_jax.models.transformer import Attention, Shape
from transfer_jax.nn.initializers import NumpyRngs


def test_attention_to_oneself_is_the_identity():
    own = jnp.broadcast_to(jnp.eye(5), (2, 5, 5))
    np.testing.assert_array_equal(rollout([own] * 4), own)


def test_two_blocks_by_hand():
    """Token 0 attends to token 1 in the upper block, and token 1 to token 2 in the lower block."""
    lower, upper = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    lower[1], upper[0] = [0, 0, 1], [0, 1, 0]
    found = rollout([jnp.asarray(lower)[None], jnp.asarray(upper)[None]])[0]
    np.testing.assert_allclose(found, [[0.5, 0.25, 0.25], [0, 0.5, 0.5], [0, 0, 1]])


def test_rows_sum_to_one():
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 2, 6, 6)), axis=-1)
    np.testing.assert_allclose(rollout(list(weights)).sum(-1), 1, rtol=1e-5)


def test_weights_match_the_layer():
    """With one head, the values mixed by the weights are the output of the layer."""
    layer, x = Attention(8, 1, NumpyRngs(0)), jax.random.normal(jax.random.key(0), (2, 5, 8))
    query, key, value = layer.inputs(x)
    mixed = attention_weights(query, key) @ value[:, :, 0]
    np.testing.assert_allclose(layer.proj(mixed), layer(x), rtol=1e-4, atol=1e-6)


def test_weights_match_the_pooling():
    pool = AttentionPool(Shape(8, 1, 2), NumpyRngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    query, key, _ = pool.inputs(x)
    assert query.shape[1] == 1
    found = attention_weights(query, key)
    assert found.shape == (2, 1, 5)
    by_hand = jax.nn.softmax(jnp.einsum("bqhc,bkhc->bhqk", query, key) / 2, axis=-1).mean(1)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("vit_nano_patch8_32", True),
        ("vit_base_patch16_siglip_224", True),
        ("vit_base_patch32_clip_224", True),
        ("deit_tiny_distilled_patch16_224", True),
        ("swin_tiny_patch4_window7_224", False),
        ("mixer_s32_224", False),
        ("efficientnet_lite0", False),
    ],
)
def test_which_networks(name, whole):
    model = create_model(name, 2, abstract_backbone=True, abstract_head=True)
    assert is_transformer(model.backbone) == whole


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vit_nano_patch8_32", 4),
        ("deit_tiny_distilled_patch16_224", 2),
        ("vit_base_patch16_siglip_224", 2),
        ("vit_small_patch14_reg4_dinov2", 2),
        ("beit_base_patch16_224", 2),
    ],
)
def test_maps_have_a_value_a_patch(name, side):
    size = side * variant_of(name).shape.patch
    model = create_model(name, 2, image_size=size, abstract_backbone=True, abstract_head=True)
    graphdef, params, stats = split(model)
    maps = make_rollout(graphdef, variant_of(name).preprocessing)
    images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.uint8)
    assert jax.eval_shape(maps, {**params, **stats}, images).shape == (3, side, side)


def test_it_follows_the_class_token():
    """Only the position of one patch is not zero, and all queries match its key."""
    model = create_model("vit_nano_patch8_32", 2)
    model.eval()
    graphdef, params, stats = split(model)
    arrays = {path: jnp.zeros_like(array) for path, array in {**params, **stats}.items()}
    for index in range(3):
        block = f"backbone/blocks.{index}"
        arrays[f"{block}/norm1/scale"] = jnp.ones(32)
        arrays[f"{block}/attn/qkv/bias"] = jnp.zeros(96).at[0].set(9.0)  # all queries use channel 0
        arrays[f"{block}/attn/qkv/kernel"] = jnp.zeros((32, 96)).at[0, 32].set(1.0)  # keys copy channel 0
    arrays["backbone/embed/pos_embed"] = jnp.zeros((1, 17, 32)).at[0, 1 + 6, 0].set(1.0)
    maps = make_rollout(graphdef, variant_of("vit_nano_patch8_32").preprocessing)
    found = np.asarray(maps(arrays, jnp.zeros((1, 32, 32, 3), jnp.uint8)))[0]
    assert np.unravel_index(found.argmax(), found.shape) == (1, 2)
    assert np.delete(found.ravel(), 6).max() < 1e-6
