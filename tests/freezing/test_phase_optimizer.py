import functools

import optax
import pytest

from transfer_jax.freezing import Phase
from transfer_jax.freezing.phase_optimizer import at_unit_rate


def phase(**fields) -> Phase:
    return Phase(name="p", train="head", epochs=1, **fields)


@pytest.mark.parametrize(
    ("fields", "learning_rate", "shape"),
    [
        ({"optimizer": optax.adam(1e-3)}, 1.0, "constant"),
        ({"optimizer": optax.adam(1e-3), "learning_rate": 0.5}, 0.5, "constant"),
        ({"optimizer": optax.adam(1e-3), "shape": "linear"}, 1.0, "linear"),
        ({"optimizer": optax.MultiSteps(optax.adam(1e-3), 2)}, 1.0, "constant"),
        ({"optimizer": optax.adam, "learning_rate": 0.1}, 0.1, "cosine"),
        ({"optimizer": "optax:adam", "learning_rate": 0.1}, 0.1, "cosine"),
        ({"shape": "optax.constant_schedule(value=0.1)"}, 1.0, "optax.constant_schedule(value=0.1)"),
        ({"optimizer": "sgd", "learning_rate": 0.1}, 0.1, "cosine"),
    ],
)
def test_defaults_follow_from_the_optimizer(fields, learning_rate, shape):
    found = phase(**fields)
    assert (found.learning_rate, found.shape) == (learning_rate, shape)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("nadam", "optax.nadam"),
        (optax.lamb, "optax.lamb"),
        (functools.partial(optax.adamw, weight_decay=0.1), "optax.adamw(weight_decay=0.1)"),
        ("adamw", "adamw"),
    ],
)
def test_optimizers_of_optax_are_stored_by_name(given, expected):
    assert phase(optimizer=given, learning_rate=0.1).optimizer == expected
    assert at_unit_rate("optax.lamb(b1=0.8)").init is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "phase 'p': learning_rate is missing"),
        ({"optimizer": optax.adam}, "learning_rate is missing"),
        ({"optimizer": 3, "learning_rate": 1}, "or an optax.GradientTransformation, or a function .*, got 3"),
        ({"optimizer": lambda: 1, "learning_rate": 1}, "a function from the learning rate to one, got <func"),
        ({"optimizer": "math:pi", "learning_rate": 1}, "got math:pi, which is 3.14"),
        ({"optimizer": "sgd(nesterov=True)", "learning_rate": 1}, r"no settings; write 'optax.sgd\(nest"),
        ({"optimizer": optax.adam(1.0), "weight_decay": 0.1}, "weight_decay=0.1 needs one of the opt"),
        ({"shape": lambda step: 1.0, "warmup": 0.1}, "warmup must be 0 if shape is a function of the step"),
        ({"shape": optax.adam(1.0), "learning_rate": 1}, "shape must be .*, or a function of the step, got"),
    ],
)  # fmt: skip
def test_invalid_optimizers_and_shapes_raise(fields, message):
    with pytest.raises(ValueError, match=message):
        phase(**fields)
