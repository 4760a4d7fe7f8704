"""What is done to gradients and weights besides: L2-SP's pull, and Head2Toe's choice of features."""

from collections.abc import Container, Mapping

import jax
import jax.numpy as jnp

from transfer_jax.models.flat_arrays import Arrays, block_of


def pulled(
    grads: Arrays, params: Arrays, anchor: Mapping[str, jax.Array], *, backbone: float, head: float
) -> Arrays:
    """Gradients of the loss with `backbone / 2 |w - w0|^2 + head / 2 |w_head|^2` added to it.

    Source: Li et al. 2018 (L2-SP), arXiv:1802.01483.

    Args:
        grads: Gradients of the loss alone.
        params: The parameters w, of the same paths.
        anchor: The pretrained parameters w0 of the backbone.
        backbone: Strength of the pull of the backbone.
        head: Strength of the pull of the head.
    """

    def pull(path: str) -> jax.Array:
        if block_of(path) == "head":
            return head * params[path]
        return backbone * (params[path] - anchor[path])

    return {path: grad + pull(path) for path, grad in grads.items()}


def lassoed(grads: Arrays, params: Arrays, strength: float) -> Arrays:
    """Gradients of the loss with `strength * sum_i |w_i|` added to it, over the inputs i of the head.

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


def selected(params: Arrays, share: float) -> Arrays:
    """Parameters with zeros for all but a share of the head's inputs: those of the largest norms stay.

    Source: as `lassoed`.
    """
    path = head_input(params)
    norms = jnp.linalg.norm(params[path], axis=1)
    _, kept = jax.lax.top_k(norms, max(round(share * len(norms)), 1))
    mask = jnp.zeros((len(norms), 1), bool).at[kept].set(True)
    return {**params, path: jnp.where(mask, params[path], 0)}


def still(grads: Arrays, params: Arrays) -> Arrays:
    """Gradients with zeros for the inputs of the head that are not used, so that they stay so."""
    path = head_input(params)
    return {**grads, path: jnp.where((params[path] != 0).any(1, keepdims=True), grads[path], 0)}


def head_input(paths: Container[str]) -> str:
    """The path of the weights `(inputs, outputs)` that the features meet first."""
    first = "head/hidden/0/kernel"
    return first if first in paths else "head/classifier/kernel"
