import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks_of_others import SMALL, LinenNetwork, NnxNetwork, two_branches

from transfer_jax import own_model


def test_the_features_are_those_that_the_replaced_layer_reads(images):
    network = NnxNetwork(nnx.Rngs(0))
    model = own_model(network, head="fc", preprocessing=SMALL)
    network.eval()
    x = images
    for stage in network.features:
        x = stage(x)
    outputs, _ = model.modes(frozenset(), "frozen")(model.params, model.state, {"image": images}, None)
    np.testing.assert_array_equal(outputs, x.mean((1, 2)))
    assert model.features == 12
    assert not [path for path in model.params if path.startswith("fc")]


def test_the_groups_are_in_the_order_of_the_program(model):
    groups = [*dict.fromkeys(model.groups.values())]
    expected = {
        "NnxNetwork": ["features/0", "features/1", "features/2"],
        "LinenNetwork": ["Conv_0", "BatchNorm_0", "Conv_1", "BatchNorm_1", "Conv_2", "BatchNorm_2"],
        "function": ["stem", "left", "right"],
    }
    assert groups == expected[model.name]


def test_the_state_is_that_of_numbers_only():
    model = own_model(NnxNetwork(nnx.Rngs(0)), head="fc", preprocessing=SMALL)
    assert {path.split("/")[-1] for path in model.state} == {"mean", "var"}  # And no random keys.


def test_unused_parameters_are_left_out():
    function, params, state = two_branches()
    model = own_model((function, {**params, "spare": jnp.ones(3)}, state), head="join", preprocessing=SMALL)
    assert {path.split("/")[0] for path in model.params} == {"stem", "left", "right"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "classifier"}, "head 'classifier' names no parameter; the paths begin with fc, features"),
        ({"head": "features/2"}, "the head 'features/2' reads arrays of the shapes"),
        ({"blocks": ["stem"]}, "parameters are in no block, such as"),
        ({"head": "fc", "inputs": ("left", "right")}, "give an example of a batch"),
    ],
    ids=["head", "map", "blocks", "inputs"],
)
def test_invalid_descriptions(settings, message):
    with pytest.raises(ValueError, match=message):
        own_model(NnxNetwork(nnx.Rngs(0)), preprocessing=SMALL, **settings)


def test_a_model_that_returns_maps_needs_a_head_or_pooling():
    def function(params, state, batch, key):
        return jnp.tanh(batch["image"] @ params["kernel"]), batch["image"]

    with pytest.raises(ValueError, match=r"the model returns arrays of the shapes.*name the last layer"):
        own_model((function, {"kernel": jnp.ones((3, 4))}, None), preprocessing=SMALL)


def test_a_linen_module_needs_its_variables():
    with pytest.raises(ValueError, match="a Linen module needs its variables"):
        own_model(LinenNetwork())


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="got a model of the type dict"):
        own_model({"params": jax.numpy.ones(3)})
