import dataclasses
import math

import numpy as np
import pytest

from transfer_jax.freezing import Phase
from transfer_jax.freezing.freezeout import freezeout_ends, freezeout_factors
from transfer_jax.freezing.learning_rates import (
    PhaseRates,
    depth_factors,
    rate_factor,
)
from transfer_jax.freezing.selectors import SelectorError

HEAD = Phase(name="head", train="head", epochs=3, learning_rate=1e-3)
PATHS = (
    *("backbone/stem/conv/kernel", "backbone/stem/norm/scale"),
    *("backbone/a/conv/kernel", "backbone/b/conv/kernel", "head/classifier/kernel"),
)
TRANSFORMER = (
    *("backbone/embed/patch/kernel", "backbone/blocks.0/fc1/kernel", "backbone/blocks.1/fc1/kernel"),
    *("backbone/norm/norm/scale", "head/classifier/kernel"),
)


@pytest.mark.parametrize(
    ("shape", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", 0.0, [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]),
        ("constant", 0.25, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.5, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("cosine", 0.5, [0.2, 0.4, 0.6, 0.8, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        # the slanted triangle: (1 + 31 p) / 32 with p = 0, 1/2, 1, then down by 1/6 a step
        ("slanted", 0.25, [1 / 32, (1 + 15.5) / 32, 1, *((1 + 31 * k / 6) / 32 for k in (5, 4, 3, 2, 1))]),
    ],
)
def test_rate_factors_by_hand(shape, warmup, expected):
    phase = dataclasses.replace(HEAD, warmup=warmup, shape=shape)
    assert [rate_factor(phase, step, 8) for step in range(8)] == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine", "slanted"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.37, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_rates_increase_then_decrease_within_range(shape, warmup, steps):
    phase = dataclasses.replace(HEAD, warmup=warmup or 0.01 * (shape == "slanted"), shape=shape)
    factors = [rate_factor(phase, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize(
    ("paths", "changes", "expected"),
    [
        (PATHS, {}, {"stem": 1, "a": 1, "b": 1, "head": 1}),
        (PATHS, {"layer_decay": 0.5}, {"stem": 0.125, "a": 0.25, "b": 0.5, "head": 1}),
        (PATHS, {"layer_decay": 0.5, "decay_start": 2}, {"stem": 1 / 16, "a": 0.125, "b": 0.25, "head": 1}),
        (
            PATHS,
            {"layer_decay": 0.5, "groups": ("stem", "b")},
            {"stem": 0.25, "a": 0.25, "b": 0.5, "head": 1},
        ),
        # BEiT: the last norm has the factor of the head, the last of n blocks d, the embedding d ** (n + 1)
        (
            TRANSFORMER,
            {"layer_decay": 0.5},
            {"embed": 0.125, "blocks.0": 0.25, "blocks.1": 0.5, "norm": 1, "head": 1},
        ),
    ],
)
def test_depth_factors_by_hand(paths, changes, expected):
    found = depth_factors(dataclasses.replace(HEAD, **changes), paths)
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("groups", "message"),
    [(("stem", "c"), "matches no block; the blocks are stem, a, b, head"), (("a",), "leave out stem")],
)
def test_invalid_groups_raise(groups, message):
    with pytest.raises(SelectorError, match=message):
        depth_factors(dataclasses.replace(HEAD, groups=groups), PATHS)


def test_freezeout_by_hand():
    blocks = ("stem", "a", "head")
    assert freezeout_ends(0.5, blocks) == pytest.approx({"stem": 0.125, "a": 0.75**3, "head": 1.0})
    assert freezeout_factors(0.5, blocks, 0.0) == pytest.approx({"stem": 1 / 0.125, "a": 0.75**-3, "head": 1})
    middle = freezeout_factors(0.5, blocks, 0.0625)  # half of the time until the stem freezes
    assert middle["stem"] == pytest.approx(4.0)
    assert middle["head"] == pytest.approx((1 + math.cos(math.pi / 16)) / 2)
    assert freezeout_factors(0.5, blocks, 0.125)["stem"] == 0


def test_rate_is_the_product_of_base_depth_time_and_statistic():
    labels = {
        "backbone/stem/conv/kernel": "frozen",
        "backbone/a/conv/kernel": "a",
        "backbone/a/conv/bias": "a",
        "head/classifier/kernel": "head",
    }
    phase = dataclasses.replace(HEAD, learning_rate=0.8, layer_decay=0.5, shape="linear")
    scales = {"backbone/stem/conv/kernel": 9.0, "backbone/a/conv/kernel": 0.1, "head/classifier/kernel": 0.5}
    found = PhaseRates(phase, labels, 4).at(1, scales)
    assert found == pytest.approx(
        {"a": 0.3, "head": 0.6, "backbone/a/conv/kernel": 0.03, "head/classifier/kernel": 0.3}
    )
    assert all(rate.dtype == np.float32 for rate in found.values())
    assert set(PhaseRates(phase, labels, 4).at(1)) == {"a", "head"}
