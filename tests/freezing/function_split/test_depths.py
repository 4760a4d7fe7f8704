import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing.function_split import split_frozen
from transfer_jax.freezing.function_split.depths import split_at_depths

BLOCKS = ("low", "middle", "head")
WIDTHS = (12, 6, 4)


def network(params, state, batch, key):
    """Two layers and a head; the middle layer is also an output of its own."""
    x = jnp.tanh(batch["x"] @ params["low"]["w"])
    hidden = jnp.tanh(x @ params["middle"]["w"])
    return {"logits": hidden @ params["head"]["w"], "hidden": hidden, "low": x}


def parameters(**others):
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = zip(keys, BLOCKS, (5, *WIDTHS), WIDTHS, strict=False)
    return {**{name: {"w": jax.random.normal(key, (a, b))} for key, name, a, b in sizes}, **others}


BATCH = {"x": jax.random.normal(jax.random.key(1), (6, 5)), "unused": jnp.zeros((6, 2))}


def test_depths_are_the_arrays_behind_blocks():
    params = parameters()
    depths = split_at_depths(network, params, BATCH, ["middle", "low"])
    assert depths.blocks == BLOCKS
    assert [*depths.features] == ["low", "middle"]
    assert [each.shape for each in depths.features.values()] == [(12,), (6,)]
    expected = network(params, None, BATCH, None)
    found = depths.prefix(params, BATCH)
    np.testing.assert_array_equal(found["low"], expected["low"])
    np.testing.assert_array_equal(found["middle"], expected["hidden"])


@pytest.mark.parametrize("block", ["low", "middle"])
def test_depths_are_those_of_the_split_with_the_blocks_above_trainable(block):
    def logits(params, state, batch, key):
        return network(params, state, batch, key)["logits"]

    params = parameters()
    frozen = BLOCKS[: BLOCKS.index(block) + 1]
    labels = {name: {"w": "frozen" if name in frozen else name} for name in BLOCKS}
    split = split_frozen(logits, params, labels, BATCH)
    depths = split_at_depths(logits, params, BATCH, block)
    assert [each.operation for each in depths.features.values()] == [
        each.operation for each in split.features.values()
    ]


def test_shared_operations_are_computed_once_and_the_head_is_left_out():
    params = parameters()
    depths = split_at_depths(network, params, BATCH, ["low", "middle"])
    text = str(jax.make_jaxpr(depths.prefix)(params, BATCH))
    assert text.count("dot_general") == 2
    assert split_at_depths(network, params, BATCH, "low").prefix({"low": params["low"]}, BATCH)


@pytest.mark.parametrize("examples", [1, 2, 9])
def test_batches_of_any_size(examples):
    params = parameters()
    batch = jax.tree.map(lambda leaf: jnp.resize(leaf, (examples, *leaf.shape[1:])), BATCH)
    found = jax.jit(split_at_depths(network, params, BATCH, "all").prefix)(params, batch)
    assert {name: value.shape for name, value in found.items()} == {
        "low": (examples, 12),
        "middle": (examples, 6),
        "head/0": (examples, 12),  # All three outputs.
        "head/1": (examples, 6),
        "head/2": (examples, 4),
    }


def test_default_is_the_input_of_the_last_block():
    params = parameters(another={"w": jnp.zeros(3)})  # A block that nothing uses does not count.
    depths = split_at_depths(network, params, BATCH)
    assert [*depths.features] == ["middle"]
    assert depths.blocks == BLOCKS


def test_features_of_a_block_may_be_several_arrays():
    def towers(params, state, batch, key):
        left, right = batch["x"] @ params["low"]["w"], batch["x"] @ params["middle"]["w"]
        return jnp.concatenate([left, right], 1) @ params["head"]["w"]

    params = {
        "low": {"w": jnp.ones((5, 12))},
        "middle": {"w": jnp.ones((5, 3))},
        "head": {"w": jnp.ones((15, 4))},
    }
    depths = split_at_depths(towers, params, BATCH, "middle")
    assert {name: each.shape for name, each in depths.features.items()} == {"middle": (15,)}


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (["midle"], r"no block 'midle'; did you mean middle\? The blocks are low, middle, head"),
        ([], "at names no block. The blocks are low, middle, head"),
    ],
)
def test_unknown_blocks_are_errors(at, message):
    with pytest.raises(ValueError, match=message):
        split_at_depths(network, parameters(), BATCH, at)


def test_a_block_that_mixes_examples_has_no_features():
    def normalized(params, state, batch, key):
        x = batch["x"] @ params["low"]["w"]
        return (x - x.mean(0)) @ params["middle"]["w"] @ params["head"]["w"]

    params = parameters()
    with pytest.raises(ValueError, match=r"block 'middle' has no features of single examples: .*test_depths"):
        split_at_depths(normalized, params, BATCH, "middle")
    assert [*split_at_depths(normalized, params, BATCH, "all").features] == ["low"]


def test_digest_covers_the_parameters_below_the_last_depth():
    params = parameters()
    depths = split_at_depths(network, params, BATCH, "low")
    changed = {**params, "head": {"w": params["head"]["w"] + 1}}
    assert depths.digest(params) == depths.digest(changed)
    assert depths.digest(params) != depths.digest({**params, "low": {"w": params["low"]["w"] + 1}})
    assert depths.digest(params) != split_at_depths(network, params, BATCH, ["low", "middle"]).digest(params)


def test_arrays_of_numpy_with_64_bits_are_taken_as_jax_takes_them():
    batch = {**BATCH, "unused": np.arange(6)}
    depths = split_at_depths(network, parameters(), batch, "low")
    assert depths.prefix(parameters(), batch)["low"].shape == (6, 12)
