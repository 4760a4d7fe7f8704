import dataclasses
import math

import pytest

from transfer_jax.freezing import Phase, Schedule
from transfer_jax.freezing.schedule import depth_factors, rate_factor
from transfer_jax.freezing.selectors import SelectorError, head, top

HEAD = Phase(name="head", train="head", epochs=3, learning_rate=1e-3)
TOP = Phase(name="top", train="top( 2 )", epochs=1, learning_rate=1e-4, augment=True, views=4, clip_norm=1.0)


@pytest.mark.parametrize(
    ("shape", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", 0.0, [(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]),
        ("constant", 0.25, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.5, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("cosine", 0.5, [0.2, 0.4, 0.6, 0.8, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_rate_shapes_by_hand(shape, warmup, expected):
    phase = dataclasses.replace(HEAD, shape=shape, warmup=warmup)
    assert [rate_factor(phase, step, 8) for step in range(8)] == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.37, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_rates_climb_then_fall_and_stay_in_range(shape, warmup, steps):
    phase = dataclasses.replace(HEAD, shape=shape, warmup=warmup)
    factors = [rate_factor(phase, step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_depth_factors_by_hand():
    phase = dataclasses.replace(HEAD, layer_decay=0.5)
    assert depth_factors(phase, ["stem", "a", "b", "head"]) == {"head": 1, "b": 0.5, "a": 0.25, "stem": 0.125}
    assert set(depth_factors(HEAD, ["stem", "head"]).values()) == {1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "phase 'head': epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\)"),
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\]"),
        ({"layer_decay": 1.1}, r"layer_decay must be in \(0, 1\]"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"views": -1}, "views must be at least 0"),
        ({"views": 2}, "views=2 are augmentations, but augment is off"),
        (
            {"optimizer": "adam"},
            r"optimizer must be one of \('adamw', 'sgd', 'rmsprop', 'lion'\), got 'adam'",
        ),
        ({"shape": "step"}, "shape must be one of .*'cosine'"),
        ({"norm": "eval"}, r"norm must be one of \('frozen', 'train'\)"),
        ({"cache": "on"}, r"cache must be one of \('auto', 'off', 'require'\)"),
    ],
)
def test_phases_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HEAD, **change)


def test_a_wrong_selector_is_found_at_once():
    with pytest.raises(SelectorError, match="cannot read the selector 'everything'"):
        dataclasses.replace(HEAD, train="everything")


def test_selectors_are_kept_as_expressions():
    assert TOP.train == "top(2)"
    assert TOP.selector == top(2)
    assert dataclasses.replace(TOP, train=head | top(1)).train == "(head | top(1))"


@pytest.mark.parametrize(
    ("augment", "views", "cacheable"), [(False, 0, True), (True, 0, False), (True, 3, True)]
)
def test_fresh_augmentation_forbids_a_cache(augment, views, cacheable):
    assert dataclasses.replace(HEAD, augment=augment, views=views).cacheable == cacheable


def test_schedules_survive_json_and_hashing():
    schedule = Schedule((HEAD, TOP))
    again = Schedule.from_json(schedule.to_json())
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert str(schedule) == "head: head x 3 -> top: top(2) x 1"


@pytest.mark.parametrize(
    ("phases", "message"), [((), "at least one phase"), ((HEAD, HEAD), "different names, got head, head")]
)
def test_schedules_are_checked(phases, message):
    with pytest.raises(ValueError, match=message):
        Schedule(phases)
