"""The networks that a search can use, and the cost of their forward passes."""

import functools

import jax
import jax.numpy as jnp

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.nn.flops import multiply_adds
from transfer_jax.weights.specs import WeightsSpec, specs

MOST = 6
"""Largest number of networks that a search looks at."""


def networks_here(most: int = MOST) -> tuple[str, ...]:
    """Returns the networks whose published weights are on this machine, the cheapest first.

    Of many, those with the best published accuracy are taken.
    """
    here: dict[str, WeightsSpec] = {}
    for spec in specs():
        if spec.model not in here and spec.present():
            here[spec.model] = spec
    best = sorted(here.values(), key=lambda spec: -(spec.accuracy or 0.0))[:most]
    return cheapest_first([spec.model for spec in best])


def cheapest_first(names: list[str]) -> tuple[str, ...]:
    """Returns networks by the operations of their forward passes."""
    return tuple(sorted(names, key=lambda name: prefix_multiply_adds(name, _side(name), None)))


def _side(name: str) -> int:
    return variant_of(name).preprocessing.image_size


@functools.lru_cache
def prefix_multiply_adds(name: str, image_size: int, boundary: str | None) -> int:
    """Returns the multiply-adds of one image's forward pass through a backbone.

    Args:
        name: Name of the network.
        image_size: Height and width of the image, in pixels.
        boundary: The block at whose output the pass ends; None for the whole backbone.
    """
    model = create_model(name, 2, image_size=image_size, abstract_backbone=True, abstract_head=True)
    model.eval()
    graphdef, params, stats = split(model)

    def prefix(arrays: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return merge(graphdef, arrays).backbone(x, stop=boundary)

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return multiply_adds(prefix, {**params, **stats}, image)
