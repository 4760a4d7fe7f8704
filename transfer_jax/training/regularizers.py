"""Regularization by changed gradients and weights: L2-SP, and the feature selection of Head2Toe."""

from collections.abc import Container, Mapping

import jax
import jax.numpy as jnp

from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.models.paths import block_of


def add_l2_sp(
    grads: Arrays, params: Arrays, anchor: Mapping[str, jax.Array], *, backbone: float, head: float
) -> Arrays:
    """Returns the gradients of the loss plus `backbone / 2 |w - w0|^2 + head / 2 |w_head|^2`.

    Source: Li et al. 2018 (L2-SP), arXiv:1802.01483.

    Args:
        grads: Gradients of the loss alone.
        params: The parameters w, of the same paths.
        anchor: The pretrained parameters w0 of the backbone.
        backbone: Strength of the penalty on the backbone.
        head: Strength of the penalty on the head.
    """

    def pull(path: str) -> jax.Array:
        if block_of(path) == "head":
            return head * params[path]
        return backbone * (params[path] - anchor[path])

    return {path: grad + pull(path) for path, grad in grads.items()}


def add_group_lasso(grads: Arrays, params: Arrays, strength: float) -> Arrays:
    """Returns the gradients of the loss plus `strength * sum_i |w_i|` over the inputs i of the head.

    Source: Evci et al. 2022 (Head2Toe), arXiv:2201.03529.

    Args:
        grads: Gradients of the loss alone.
        params: The parameters, of the same paths.
        strength: Strength of the penalty.
    """
    path = head_input(params)
    weights = params[path]
    norms = jnp.linalg.norm(weights, axis=1, keepdims=True)
    return {**grads, path: grads[path] + strength * weights / jnp.maximum(norms, 1e-12)}


def keep_largest_inputs(params: Arrays, share: float) -> Arrays:
    """Returns the parameters with zeros for all but the head's inputs with the largest weight norms.

    Source: Evci et al. 2022 (Head2Toe), arXiv:2201.03529.

    Args:
        params: The parameters by path.
        share: Fraction of the inputs to keep; at least one is kept.
    """
    path = head_input(params)
    norms = jnp.linalg.norm(params[path], axis=1)
    _, kept = jax.lax.top_k(norms, max(round(share * len(norms)), 1))
    mask = jnp.zeros((len(norms), 1), bool).at[kept].set(True)
    return {**params, path: jnp.where(mask, params[path], 0)}


def freeze_unused_inputs(grads: Arrays, params: Arrays) -> Arrays:
    """Returns the gradients with zeros for inputs of the head whose weights are all zero."""
    path = head_input(params)
    return {**grads, path: jnp.where((params[path] != 0).any(1, keepdims=True), grads[path], 0)}


def head_input(paths: Container[str]) -> str:
    """Returns the path of the first weights of the head, `(inputs, outputs)`."""
    first = "head/hidden/0/kernel"
    return first if first in paths else "head/classifier/kernel"
