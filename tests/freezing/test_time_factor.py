import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.freezing import Phase, Schedule
from transfer_jax.freezing.learning_rates import PhaseRates, rate_factor
from transfer_jax.freezing.time_factor import SHAPE, time_factor


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (optax.cosine_decay_schedule(1.0, 100), lambda step: 0.5 * (1 + math.cos(math.pi * step / 100))),
        ("optax.linear_schedule(init_value=1.0, end_value=0.0, transition_steps=8)", lambda s: 1 - s / 8),
        (lambda step: 0.5, lambda step: 0.5),
        (lambda step: math.exp(-step), lambda step: math.exp(-step)),  # JAX cannot trace it
        (lambda step: 1.0 if step < 5 else 0.5, lambda step: 1.0 if step < 5 else 0.5),
        (lambda step: [0, 1, 2, 3, 4, 5, 6, 7][step], lambda step: step),
        (lambda step: np.float32(2.0), lambda step: 2.0),
        (lambda step: jnp.sqrt(step), math.sqrt),
    ],
)  # fmt: skip
def test_factors(given, expected):
    shape = SHAPE.read(given)
    for step in (0, 1, 7):
        assert time_factor(shape, step) == pytest.approx(expected(step), rel=1e-5, abs=1e-7)


def test_long_schedules():
    shape = SHAPE.read(lambda step: step)
    assert [time_factor(shape, step) for step in (4095, 4096, 20000)] == [4095, 4096, 20000]


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_invalid_factors_raise(value):
    phase = Phase(name="a", train="head", epochs=1, shape=lambda step: value)
    with pytest.raises(ValueError, match=r"phase 'a': the .* schedule <lambda> .* returns .* at step 3"):
        rate_factor(phase, 3, 10)


def test_rates_are_the_product_with_the_learning_rate_and_the_depth():
    labels = {"backbone/low/kernel": "low", "head/kernel": "head"}
    phase = Phase(
        name="a", train="all_()", epochs=1, learning_rate=0.1, layer_decay=0.5, shape=lambda step: step + 1
    )
    assert PhaseRates(phase, labels, 10).at(1) == pytest.approx({"low": 0.1, "head": 0.2})


def test_a_missing_schedule_has_the_factor_one():
    phase = Phase(name="a", train="head", epochs=1, shape=lambda step: 0.5)
    (stored,) = Schedule.from_json(Schedule((phase,)).to_json()).phases
    assert stored == phase
    assert rate_factor(phase, 3, 10) == 0.5
    assert rate_factor(stored, 3, 10) == 1.0
    assert rate_factor(phase, 3, 10) == 0.5
