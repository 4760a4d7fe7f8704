from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.freezing import FROZEN, boundary, labels, multi_transform, partition
from transfer_jax.freezing.block_groups import group_by_block
from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.freezing.selectors import SelectorError, parse
from transfer_jax.models.flat_arrays import split

NAMES = ("stem", "blocks.1", "blocks.11", "top", "pre_logits")
SELECTORS = {  # selector: (blocks that train, boundary)
    "head": (("head",), "pre_logits"),
    "top(0)": (("head",), "pre_logits"),
    "top(1)": (("top", "head"), "blocks.11"),
    "top(2)": (("blocks.11", "top", "head"), "blocks.1"),
    "from_('blocks.1')": (("blocks.1", "blocks.11", "top", "head"), "stem"),
    "blocks('blocks.1')": (("blocks.1",), "stem"),
    "blocks('blocks.11', 'head')": (("blocks.11", "head"), "blocks.1"),
    "blocks('stem') | head": (("stem", "head"), None),
    "role('norm')": (("stem", "blocks.1", "blocks.11", "top"), None),
    "role('bias') & top(1)": (("top", "head"), "blocks.11"),
    "match('blocks.11/conv') | head": (("blocks.11", "head"), "blocks.1"),
    "~head": (("stem", "blocks.1", "blocks.11", "top"), None),
    "all_()": (("stem", "blocks.1", "blocks.11", "top", "head"), None),
}


@pytest.fixture(scope="module")
def params(make_toy):
    return split(make_toy())[1]


@pytest.mark.parametrize(("text", "training", "end"), [(text, *found) for text, found in SELECTORS.items()])
def test_labels_cover_every_parameter(params, text, training, end):
    found = labels(params, parse(text), NAMES)
    assert set(found) == set(params)
    assert trainable_blocks(found) == training
    assert boundary(found, NAMES) == end
    chosen = parse(text).select(group_by_block(params, NAMES))
    for path, label in found.items():
        block = "head" if path.startswith("head/") else path.split("/")[1]
        assert label == (block if path in chosen else FROZEN)
    trainable, frozen = partition(params, found)
    assert set(trainable) == chosen
    assert set(frozen) == set(params) - chosen
    assert all({**trainable, **frozen}[path] is params[path] for path in params)


def test_labels_are_in_block_order():
    paths = ["head/b", "head/a", "backbone/stem/k", "backbone/blocks.11/k", "backbone/blocks.1/k"]
    ordered = ("backbone/stem/k", "backbone/blocks.1/k", "backbone/blocks.11/k", "head/a", "head/b")
    assert tuple(group_by_block(paths, NAMES)) == ordered
    assert tuple(labels(paths, parse("all_()"), NAMES)) == ordered


@pytest.mark.parametrize(
    "text", ["head & ~head", "~all_()", "blocks('stem') & match('classifier')", "blocks()"]
)
def test_empty_selection_raises(params, text):
    with pytest.raises(SelectorError, match="leaves nothing to train"):
        labels(params, parse(text), NAMES)


@pytest.mark.parametrize("text", SELECTORS)
def test_multi_transform_gives_zero_updates_to_frozen_parameters(params, text):
    found = labels(params, parse(text), NAMES)
    rates = {block: 1.0 + index for index, block in enumerate(trainable_blocks(found))}
    optimizer = multi_transform({block: optax.sgd(rate) for block, rate in rates.items()}, found)
    gradients = {path: jnp.ones_like(array) for path, array in params.items()}
    whole: Any = optimizer.update(gradients, optimizer.init(params), params)[0]
    for path, update in whole.items():
        np.testing.assert_array_equal(update, -rates.get(found[path], 0.0), err_msg=path)
    trainable, _ = partition(params, found)
    gradients = {path: gradients[path] for path in trainable}
    part: Any = optimizer.update(gradients, optimizer.init(trainable), trainable)[0]
    assert set(part) == set(trainable)
    for path, update in part.items():
        np.testing.assert_array_equal(update, whole[path])


def test_multi_transform_has_no_moments_of_frozen_parameters(params):
    found = labels(params, parse("head"), NAMES)
    optimizer = multi_transform({"head": optax.adam(1e-3)}, found)
    shapes = [leaf.shape for leaf in jax.tree.leaves(optimizer.init(params))]
    assert sorted(shapes) == [(), (3,), (3,), (16, 3), (16, 3)]
