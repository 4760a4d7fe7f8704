import jax
import numpy as np
import optax
import pytest
from flax import nnx

from transfer_jax.freezing import (
    combine,
    head,
    labels,
    leaves_by_path,
    match,
    multi_transform,
    partition,
    top,
)
from transfer_jax.freezing.selectors import SelectorError


class Network(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(3)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.head = nnx.Linear(2, 3, rngs=rngs)


def nested():
    state = nnx.split(Network(nnx.Rngs(0)), nnx.Param, ...)[1]
    return nnx.to_pure_dict(state)


TREES = {
    "nested dictionaries": nested,
    "state": lambda: nnx.split(Network(nnx.Rngs(0)), nnx.Param, ...)[1],
    "lists": lambda: [{"kernel": np.ones((2, 2)), "bias": np.ones(2)}, [np.ones(3), np.zeros(1)]],
    "paths": lambda: {f"layers.{index}/kernel": np.full(2, index) for index in range(3)},
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("pattern", ["kernel", "0"])
def test_parts_of_a_tree(name, pattern):
    tree = TREES[name]()
    if name == "paths" and pattern == "kernel":
        pattern = "1/kernel"
    found = labels(tree, match(pattern))
    trainable, frozen = partition(tree, found)
    by_path = leaves_by_path(tree)
    assert {*leaves_by_path(trainable)} == {path for path in by_path if pattern in path}
    assert {*leaves_by_path(frozen)} == {path for path in by_path if pattern not in path}
    joined = combine(trainable, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(tree)
    for path, leaf in leaves_by_path(joined).items():
        assert leaf is by_path[path]


@pytest.mark.parametrize("name", TREES)
def test_updates_of_frozen_parameters_are_zero(name):
    tree = TREES[name]()
    found = labels(tree, match("0"))
    names = {label for label in leaves_by_path(found).values() if label != "frozen"}
    optimizer = multi_transform({label: optax.sgd(1.0) for label in names}, found)
    trainable, _ = partition(tree, found)
    for params in (tree, trainable):
        updates = optimizer.update(params, optimizer.init(params), params)[0]
        for path, update in leaves_by_path(updates).items():
            value = leaves_by_path(tree)[path]
            np.testing.assert_array_equal(update, -value if "0" in path else 0 * value)


def test_labels_in_an_optimizer_of_a_module():
    model = Network(nnx.Rngs(0))
    found = labels(nnx.state(model, nnx.Param), head)
    optimizer = nnx.Optimizer(model, multi_transform({"head": optax.sgd(1.0)}, found), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    gradients = jax.tree.map(np.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, gradients)
    after = leaves_by_path(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    for path, leaf in leaves_by_path(before).items():
        np.testing.assert_array_equal(after[path], leaf - (path.startswith("head")))


def test_blocks_in_order():
    order = ["layers/0", "layers/1", "layers/2", "norm"]
    found = leaves_by_path(labels(nested(), top(2), order))
    assert {path for path, label in found.items() if label != "frozen"} == {
        "layers/2/kernel",
        "layers/2/bias",
        "norm/scale",
        "norm/bias",
        "head/kernel",
        "head/bias",
    }
    assert found["layers/2/kernel"] == "layers/2"


def test_order_that_is_unknown_raises():
    with pytest.raises(SelectorError, match=r"top\(1\) needs the order of the blocks"):
        labels(nested(), top(1))
    with pytest.raises(SelectorError, match="needs a block of that name, or the order"):
        labels({"a": {"kernel": 1}, "b": {"kernel": 2}}, head)


def test_regular_expression_groups():
    found = labels(nested(), match("layers/1"), r"^(\w+)")
    assert found["layers"][1]["kernel"] == "layers"
    assert found["layers"][0]["kernel"] == "frozen"


def test_parameter_in_no_block_raises():
    with pytest.raises(SelectorError, match="2 parameters are in no block, such as 'norm/bias'"):
        labels(nested(), head, ["layers/0", "layers/1", "layers/2"])


def test_leaf_without_label_raises():
    with pytest.raises(ValueError, match="1 leaves have no label, such as 'b/c'"):
        partition({"a": 1, "b": {"c": 2}}, {"a": "a", "b": {}})


def test_parts_in_common_raise():
    with pytest.raises(ValueError, match="leaf in common"):
        combine({"a": 1}, {"a": 2})
