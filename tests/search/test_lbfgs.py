import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.search.lbfgs import minimize


def quadratic(points, matrices, centres):
    """One convex quadratic function for each problem, with the minimum 3."""
    away = points - centres
    return 3 + jnp.einsum("pi,pij,pj->p", away, matrices, away) / 2


def problems(condition):
    rng = np.random.default_rng(0)
    rotations = np.linalg.qr(rng.normal(size=(3, 6, 6)))[0]
    scales = np.geomspace(1, condition, 6)
    return jnp.asarray(rotations @ (scales[:, None] * rotations.transpose(0, 2, 1)), jnp.float32)


@pytest.mark.parametrize("condition", [1.0, 100.0])
def test_minimum_of_each_problem_is_found(condition):
    centres = jax.random.normal(jax.random.key(0), (3, 6))
    function = functools.partial(quadratic, matrices=problems(condition), centres=centres)
    found = jax.jit(functools.partial(minimize, function, tolerance=1e-4, max_steps=200))(jnp.zeros((3, 6)))
    np.testing.assert_allclose(found.point, centres, atol=1e-3)
    np.testing.assert_allclose(found.value, 3, rtol=1e-5)
    assert found.steps < 60


def test_problem_that_is_solved_stays_as_it_is():
    start = jnp.array([[2.0, 0.0], [0.0, 0.0]])
    found = minimize(lambda x: jnp.cosh(x).sum(1), start, tolerance=1e-5, max_steps=50)
    np.testing.assert_allclose(found.point, 0, atol=1e-4)
    assert not found.point[1].any()


def test_steps_that_are_too_long_are_shortened():
    found = minimize(lambda x: 1e4 * (x**2).sum(1), jnp.ones((1, 3)), tolerance=1e-2, max_steps=50)
    np.testing.assert_allclose(found.point, 0, atol=1e-5)


def test_number_of_steps_is_limited():
    found = minimize(lambda x: (x**4).sum(1), jnp.full((1, 3), 0.7), tolerance=0.0, max_steps=4)
    assert found.steps == 4
