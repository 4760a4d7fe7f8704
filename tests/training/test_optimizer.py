import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def steps(chosen: Phase, count: int = 4) -> list[dict[str, jax.Array]]:
    """Returns the updates of several steps with different gradients."""
    optimizer: Any = make_optimizer(chosen, LABELS)
    state, found = optimizer.init(PARAMS), []
    for step in range(count):
        grads = jax.tree.map(lambda grad: grad * jnp.cos(1.0 + step), GRADS)  # noqa: B023
        updates, state = optimizer.update(grads, state, PARAMS, rates=RATES, value=jnp.float32(1.0))
        found.append(updates)
    return found


@pytest.mark.parametrize(
    ("named", "given"),
    [
        ({"optimizer": "sgd"}, optax.sgd(1.0, momentum=0.9)),
        ({"optimizer": "adamw"}, lambda rate: optax.adamw(rate, weight_decay=0.0)),
        ({"optimizer": "adamw"}, "optax.adamw(weight_decay=0.0)"),
        ({"optimizer": "lion"}, functools.partial(optax.lion, b1=0.9, weight_decay=0.0)),
        (
            {"optimizer": "sgd", "clip_norm": 1.0},
            optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0, 0.9)),
        ),
        ({"optimizer": "optax.lamb(b1=0.8)"}, optax.lamb(1.0, b1=0.8)),
        (
            {"optimizer": "optax.contrib.muon"},
            optax.inject_hyperparams(optax.contrib.muon)(learning_rate=1.0),
        ),
    ],
)
def test_an_object_equals_the_optimizer_of_that_name(named, given):
    exact = "clip_norm" not in named and "muon" not in named["optimizer"]
    for one, other in zip(steps(phase(**named)), steps(phase(optimizer=given)), strict=True):
        for path in PARAMS:
            if exact:
                np.testing.assert_array_equal(one[path], other[path])
            else:
                np.testing.assert_allclose(one[path], other[path], rtol=1e-5)


def test_an_object_is_applied_to_all_trainable_parameters_at_once():
    own = optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1), optax.adam(0.01))
    found, state = steps(phase(optimizer=own)), own.init(PARAMS)
    for step, updates in enumerate(found):
        grads = jax.tree.map(lambda grad: grad * jnp.cos(1.0 + step), GRADS)  # noqa: B023
        expected: Any
        expected, state = own.update(grads, state, PARAMS)
        for path, label in LABELS.items():
            if label != "frozen":
                np.testing.assert_array_equal(updates[path], RATES[label] * expected[path])


def test_an_object_receives_the_loss_and_the_rates_of_tensors():
    plateau = optax.contrib.reduce_on_plateau(patience=1, factor=0.5)
    optimizer: Any = make_optimizer(phase(optimizer=optax.chain(optax.sgd(1.0), plateau)), LABELS)
    state, rates = optimizer.init(PARAMS), {**RATES, "head/bias": jnp.float32(0.5)}
    found = []
    for _ in range(4):
        updates, state = optimizer.update(GRADS, state, PARAMS, rates=rates, value=jnp.float32(1.0))
        found.append({path: float(update.squeeze()) for path, update in updates.items()})
    assert found[0] == pytest.approx({"backbone/top/kernel": -0.3, "head/kernel": -3.0, "head/bias": -1.5})
    assert found[-1]["head/kernel"] > -3.0


def test_a_function_that_returns_no_optimizer_is_an_error():
    with pytest.raises(TypeError, match=r"and no optax\.GradientTransformation"):
        make_optimizer(phase(optimizer=lambda rate: rate), LABELS)
