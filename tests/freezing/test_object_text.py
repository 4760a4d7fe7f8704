import functools
import re
from typing import Any

import numpy as np
import optax
import pytest

from transfer_jax.freezing.object_text import describe, importable_name, source_of, structure


def outer(rate):
    def inner(step):
        return rate * step

    return inner


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (optax.sgd(0.1), "chain(identity, scale(step_size=-0.1))"),
        (
            optax.apply_if_finite(optax.clip_by_global_norm(2.0), 3),
            "apply_if_finite(clip_by_global_norm(max_norm=2.0), max_consecutive_errors=3)",
        ),
        (optax.MultiSteps(optax.sgd(0.1), 2), "MultiSteps"),
        (optax.constant_schedule(0.5), "constant_schedule(value=0.5)"),
        (outer(3.0), "outer(rate=3.0)"),
        (functools.partial(np.clip, 0, a_max=1), "partial(numpy:clip, 0, a_max=1)"),
        (len, "builtins:len"),
        (3, "int"),
    ],
)
def test_descriptions(value, expected):
    assert describe(value) == expected


def test_lambdas_are_described_by_their_line():
    assert re.fullmatch(r"<lambda> \(test_object_text\.py:\d+\)", describe(lambda step: step))


def test_importable_names():
    assert importable_name(outer) == f"{__name__}:outer"
    assert importable_name(outer(1.0)) == ""
    assert importable_name(3) == ""


def test_sources_are_those_of_the_users_functions():
    assert source_of(outer(1.0)) == "def inner(step):\n    return rate * step\n"
    assert source_of(functools.partial(outer, 1.0)).startswith("def outer(rate):")
    own: Any = outer
    assert source_of(optax.GradientTransformation(own, own)).startswith("def outer(rate):")
    assert source_of(optax.adam(0.1)) == source_of(optax.adam) == source_of(len) == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda x: outer(x),
        lambda x: functools.partial(outer, rate=x),
        lambda x: {"a": [x, None], "b": (1, "c"), "d": {2, x}},
        lambda x: np.full(3, x),
        lambda x: optax.adam(x),
        lambda x: optax.MultiSteps(optax.sgd(x), 2),
    ],
)
def test_structures_are_equal_for_equal_objects_only(make):
    assert structure(make(0.5)) == structure(make(0.5))
    assert structure(make(0.5)) != structure(make(0.25))
    assert " at 0x" not in structure(make(0.5))


def test_structures_of_cycles_end():
    cycle: list = [1]
    cycle.append(cycle)
    assert structure(cycle) == "list(1, …)"
