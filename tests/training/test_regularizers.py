import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.training.regularizers import (
    add_group_lasso,
    add_l2_sp,
    freeze_unused_inputs,
    keep_largest_inputs,
)


def test_l2_sp_is_the_gradient_of_its_penalty():
    params = {"backbone/a/kernel": jnp.array([3.0, 1.0]), "head/kernel": jnp.array([5.0])}
    anchor = {"backbone/a/kernel": jnp.array([1.0, 1.0])}

    def penalty(params):
        moved = params["backbone/a/kernel"] - anchor["backbone/a/kernel"]
        return 0.2 / 2 * jnp.sum(moved**2) + 0.7 / 2 * jnp.sum(params["head/kernel"] ** 2)

    zero = jax.tree.map(jnp.zeros_like, params)
    found = add_l2_sp(zero, params, anchor, backbone=0.2, head=0.7)
    for path, grad in jax.grad(penalty)(params).items():
        np.testing.assert_allclose(found[path], grad)
    np.testing.assert_allclose(found["backbone/a/kernel"], [0.4, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["head/kernel"], [3.5])


HEAD = {
    "backbone/a/kernel": jnp.ones((2, 2)),
    "head/classifier/kernel": jnp.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [-6.0, 8.0]]),
}


def test_the_group_lasso_is_the_gradient_of_its_penalty():
    def penalty(params):
        return 0.5 * jnp.sum(
            jnp.sqrt(jnp.sum(params["head/classifier/kernel"] ** 2, 1)[jnp.array([0, 1, 3])])
        )

    found = add_group_lasso(jax.tree.map(jnp.ones_like, HEAD), HEAD, 0.5)
    wanted = 1 + jax.grad(penalty)(HEAD)["head/classifier/kernel"]
    np.testing.assert_allclose(found["head/classifier/kernel"], wanted, rtol=1e-6)
    np.testing.assert_allclose(wanted[0], [1.3, 1.4], rtol=1e-6)
    np.testing.assert_array_equal(found["backbone/a/kernel"], 1)


def test_inputs_with_the_largest_weights_are_kept_and_the_others_stay_zero():
    kept = keep_largest_inputs(HEAD, 0.5)
    np.testing.assert_array_equal(kept["head/classifier/kernel"], [[3, 4], [0, 0], [0, 0], [-6, 8]])
    assert kept["backbone/a/kernel"] is HEAD["backbone/a/kernel"]
    grads = freeze_unused_inputs(jax.tree.map(jnp.ones_like, HEAD), kept)
    np.testing.assert_array_equal(grads["head/classifier/kernel"], [[1, 1], [0, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(grads["backbone/a/kernel"], 1)
    assert (np.asarray(keep_largest_inputs(HEAD, 1e-9)["head/classifier/kernel"]) != 0).any(1).tolist() == [
        *(False, False, False, True)
    ]
