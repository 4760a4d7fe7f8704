from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing import Phase, labels, partition
from transfer_jax.models.flat_arrays import split
from transfer_jax.training.optimizer import make_optimizer

LABELS = {
    "backbone/top/kernel": "top",
    "head/kernel": "head",
    "head/bias": "head",
    "backbone/stem/kernel": "frozen",
}
PARAMS = {
    "backbone/top/kernel": jnp.array([[2.0]]),
    "head/kernel": jnp.array([[4.0]]),
    "head/bias": jnp.array([8.0]),
}
GRADS = {path: jnp.full_like(param, 3.0) for path, param in PARAMS.items()}
RATES = {"top": jnp.float32(0.1), "head": jnp.float32(1.0)}


def phase(**changes) -> Phase:
    return Phase(**{"name": "p", "train": "head", "epochs": 1, "learning_rate": 1.0, **changes})


def updates(steps: int = 1, **changes) -> dict[str, float]:
    """Returns the last of several updates with the same gradients."""
    optimizer: Any = make_optimizer(phase(**changes), LABELS)
    state, found = optimizer.init(PARAMS), {}
    for _ in range(steps):
        found, state = optimizer.update(GRADS, state, PARAMS, rates=RATES)
    return {path: float(update.squeeze()) for path, update in found.items()}


@pytest.mark.parametrize(
    ("changes", "steps", "direction"),
    [
        ({"optimizer": "sgd"}, 1, 3.0),
        ({"optimizer": "sgd"}, 2, 3.0 * 1.9),
        ({"optimizer": "sgd", "momentum": 0.5}, 3, 3.0 * 1.75),
        ({"optimizer": "adamw"}, 1, 1.0),
        ({"optimizer": "adamw"}, 5, 1.0),
        ({"optimizer": "lion"}, 1, 1.0),
        ({"optimizer": "rmsprop"}, 1, 10**0.5),  # 3 / sqrt(0.1 * 3^2)
        ({"optimizer": "rmsprop"}, 2, 0.19**-0.5),
    ],
)
def test_directions_by_hand(changes, steps, direction):
    found = updates(steps, **changes)
    assert found["head/kernel"] == pytest.approx(-direction, rel=1e-5)
    assert found["head/bias"] == pytest.approx(-direction, rel=1e-5)
    assert found["backbone/top/kernel"] == pytest.approx(-0.1 * direction, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion", "rmsprop"])
def test_decay_is_decoupled_and_of_kernels_only(optimizer):
    plain, decayed = updates(optimizer=optimizer), updates(optimizer=optimizer, weight_decay=0.5)
    assert decayed["head/kernel"] - plain["head/kernel"] == pytest.approx(-1.0 * 0.5 * 4)
    assert decayed["backbone/top/kernel"] - plain["backbone/top/kernel"] == pytest.approx(-0.1 * 0.5 * 2)
    assert decayed["head/bias"] == plain["head/bias"]


@pytest.mark.parametrize(("clip_norm", "factor"), [(1.0, 27**-0.5), (100.0, 1.0)])
def test_the_gradient_is_clipped_by_its_norm_over_all_blocks(clip_norm, factor):
    found = updates(optimizer="sgd", clip_norm=clip_norm)
    assert found["head/kernel"] == pytest.approx(-3 * factor)
    assert found["backbone/top/kernel"] == pytest.approx(-0.3 * factor)


@pytest.mark.parametrize("train", ["head", "top(2)", "role('bias')", "blocks('blocks.1')", "all_()"])
@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("sgd", 1), ("lion", 1), ("rmsprop", 1)])
def test_only_the_trainable_part_has_state(make_toy, train, optimizer, moments):
    model = make_toy()
    params = split(model)[1]
    chosen = phase(train=train, optimizer=optimizer, weight_decay=0.1, clip_norm=1.0)
    found = labels(params, chosen.selector, model.backbone.block_names)
    trainable, _ = partition(params, found)
    leaves = jax.tree.leaves(make_optimizer(chosen, found).init(trainable))
    arrays = [leaf for leaf in leaves if leaf.ndim]
    counters = [leaf for leaf in leaves if not leaf.ndim]
    assert len(arrays) == moments * len(trainable)
    assert sum(leaf.nbytes for leaf in arrays) == moments * sum(param.nbytes for param in trainable.values())
    blocks = len(set(found.values()) - {"frozen"})
    assert len(counters) == (blocks if optimizer in ("adamw", "lion") else 0)
    assert np.all([counter == 0 for counter in counters])
