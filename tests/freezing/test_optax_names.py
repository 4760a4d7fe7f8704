import functools

import optax
import pytest

from transfer_jax.freezing.optax_names import (
    from_name,
    loss_name,
    name_of_function,
    optimizer_name,
    schedule_name,
)


@pytest.mark.parametrize(
    ("full_name", "text", "expected"),
    [
        (optimizer_name, "adam", "optax.adam"),
        (optimizer_name, "optax.lamb( b1 = 0.8 )", "optax.lamb(b1=0.8)"),
        (optimizer_name, "muon", "optax.contrib.muon"),
        (optimizer_name, "nadam(b2=0.9)", "optax.nadam(b2=0.9)"),
        (schedule_name, "constant_schedule(value=2)", "optax.constant_schedule(value=2)"),
        (
            schedule_name,
            "exponential_decay(init_value=1.0, transition_steps=9, decay_rate=0.9)",
            "optax.exponential_decay(init_value=1.0, transition_steps=9, decay_rate=0.9)",
        ),
        (loss_name, "poly_loss_cross_entropy", "optax.losses.poly_loss_cross_entropy"),
        (loss_name, "safe_softmax_cross_entropy()", "optax.safe_softmax_cross_entropy"),
    ],
)
def test_full_names(full_name, text, expected):
    assert full_name(text) == expected
    assert full_name(expected) == expected
    assert callable(from_name(expected))


@pytest.mark.parametrize(
    ("full_name", "text", "message"),
    [
        (optimizer_name, "lam", "Optax has no 'lam'; did you mean optax.lamb"),
        (optimizer_name, "scale_by_adam", "Optax has no 'scale_by_adam'"),
        (optimizer_name, "lbfgs", "lbfgs is unsupported: it searches along a line"),
        (optimizer_name, "adam(b3=1)", "optax.adam has no setting 'b3' here; it has b1, b2"),
        (optimizer_name, "adam(learning_rate=1)", "optax.adam has no setting 'learning_rate' here"),
        (
            optimizer_name,
            "adam(0.9)",
            r"'adam\(0.9\)' is no name with settings such as 'optax.lamb\(",
        ),
        (optimizer_name, "adam(b1=print(1))", "whose settings are literals"),
        (optimizer_name, "adam(**{'b1': 1})", "whose settings are literals"),
        (optimizer_name, "(lambda: 1)()", "whose settings are literals"),
        (optimizer_name, "", "whose settings are literals"),
        (schedule_name, "cosine_decay_schedule(init_value=1)", "needs decay_steps"),
        (loss_name, "l2_loss", "Optax has no 'l2_loss'"),
    ],
)
def test_invalid_names_raise(full_name, text, message):
    with pytest.raises(ValueError, match=message):
        full_name(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (optax.lamb, "optax.lamb"),
        (functools.partial(optax.lamb, b1=0.8), "optax.lamb(b1=0.8)"),
        (functools.partial(optax.contrib.muon, ns_steps=3), "optax.contrib.muon(ns_steps=3)"),
        (functools.partial(optax.adamw, mask=lambda params: params), None),
        (functools.partial(optax.adamw, 0.1), None),
        (optax.inject_hyperparams(optax.adamw), None),
        (optax.adam(0.1), None),
        (print, None),
    ],
)
def test_names_of_functions(value, expected):
    assert name_of_function(value, optimizer_name) == expected
