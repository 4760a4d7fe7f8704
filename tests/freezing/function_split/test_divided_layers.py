import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing import labels, match, partition
from transfer_jax.freezing.function_split import divide_layers, split_frozen

KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {
    "layers": {"kernel": jax.random.normal(KEYS[0], (4, 8, 8)), "bias": jnp.ones((4, 8))},
    "head": jax.random.normal(KEYS[1], (8, 3)),
}
BATCH = {"x": jax.random.normal(KEYS[2], (4, 8))}


def network(params, state, batch, key):
    def layer(h, each):
        return jnp.tanh(h @ each["kernel"] + each["bias"]), None

    return jax.lax.scan(layer, batch["x"], params["layers"])[0] @ params["head"]


def test_upper_layers_train_alone():
    function, params = divide_layers(network, PARAMS, "layers", 3)
    found = labels(params, match("/upper$|^head"))
    split = split_frozen(function, params, found, BATCH)
    assert split.cost.bytes == 32
    assert split.cost.suffix_flops == 2 * 8 * 8 + 2 * 8 * 3
    assert split.cost.prefix_flops == 3 * 2 * 8 * 8
    trainable, frozen = partition(params, found)
    outputs = split.suffix(trainable, frozen, None, split.prefix(frozen, BATCH), {}, None)
    np.testing.assert_allclose(outputs, network(PARAMS, None, BATCH, None), rtol=1e-5)


def test_shapes_are_divided():
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), PARAMS)
    _, params = divide_layers(network, shapes, "layers/kernel", 1)
    assert params["layers"]["kernel"]["upper"].shape == (3, 8, 8)
    assert params["layers"]["bias"].shape == (4, 8)


@pytest.mark.parametrize(
    ("prefix", "count", "message"),
    [
        ("blocks", 1, "no parameter is below 'blocks'; the paths begin with head, layers"),
        ("layers", 4, r"'layers' has \[4\] layers; choose a count between"),
        ("layers", 0, "got 0"),
    ],
)
def test_invalid_layers_raise(prefix, count, message):
    with pytest.raises(ValueError, match=message):
        divide_layers(network, PARAMS, prefix, count)
