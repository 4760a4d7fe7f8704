"""The operations of a network's forward pass, from its shapes alone."""

import functools

import jax
import jax.numpy as jnp

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.nn.flops import multiply_adds


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
