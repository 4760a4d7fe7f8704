import jax
import jax.numpy as jnp
import pytest

from transfer_jax.freezing.function_split.jaxprs import trace
from transfer_jax.freezing.function_split.step_flops import step_flops

X, W = jnp.ones((4, 16)), jnp.ones((2, 16, 16))
ONE = 2 * 4 * 16 * 16
"""The operations of one product."""
NEVER, DOTS = jax.checkpoint_policies.nothing_saveable, jax.checkpoint_policies.dots_saveable


def two(x, w):
    return jnp.tanh(jnp.tanh(x @ w[0]) @ w[1])


def scanned(x, w):
    return jax.lax.scan(lambda h, kernel: (jnp.tanh(h @ kernel), None), x, w)[0]


def branches(x, w):
    return jax.lax.cond(x[0, 0] > 0, two, lambda x, w: x @ w[0], x, w)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (two, 2 + 2 + 1),  # The gradient does not reach the input.
        (lambda x, w: x @ jax.lax.stop_gradient(w[0]) @ w[1], 2 + 1),
        (lambda x, w: (x @ w[0]).astype(int).astype(float) @ w[1], 2 + 2),
        (scanned, 2 + 2 * 2),  # The first layer counts like the others.
        (branches, 2 + 2 + 1),
        (lambda x, w: jax.jit(two)(x, w), 2 + 2 + 1),
        (lambda x, w: jax.nn.relu(x @ w[0]), 2),
        (lambda x, w: jax.checkpoint(two)(x, w), 2 + 2 + 1 + 2),
        (lambda x, w: jax.checkpoint(two, policy=NEVER)(x, w), 2 + 2 + 1 + 2),
        (lambda x, w: jax.checkpoint(two, policy=DOTS)(x, w), 2 + 2 + 1),
    ],
)
def test_products_of_a_step(function, products):
    jaxpr, _, _ = trace(function, X, W)
    assert step_flops(jaxpr.eqns, [jaxpr.invars[1]]) == products * ONE


def test_gradient_that_reaches_the_input():
    jaxpr, _, _ = trace(two, X, W)
    assert step_flops(jaxpr.eqns, jaxpr.invars) == (2 + 2 + 2) * ONE
    assert step_flops(jaxpr.eqns, []) == 2 * ONE
