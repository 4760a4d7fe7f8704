"""Grad-CAM: maps of the evidence for a class, for networks whose last activations have rows and columns.

Source: Selvaraju et al. 2017, arXiv:1610.02391.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.flat_arrays import Arrays, merge
from transfer_jax.models.preprocessing import Preprocessing

GradCam = Callable[[Arrays, jax.Array, jax.Array], jax.Array]
"""A function `(arrays, images, classes) -> maps`; see `make_grad_cam`."""


def last_spatial_block(shapes: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]]) -> str | None:
    """Returns the last block whose activations have more than one row and column; None if there is none.

    Args:
        shapes: The arrays of the activations of one image at each block, in the order of the blocks.
    """

    def is_spatial(block: str) -> bool:
        arrays = [*shapes[block].values()]
        return len(arrays) == 1 and _grid(arrays[0].shape) is not None

    return next((block for block in reversed([*shapes]) if is_spatial(block)), None)


def make_grad_cam(graphdef: nnx.GraphDef, preprocessing: Preprocessing, block: str) -> GradCam:
    """Returns a pure function `(arrays, images, classes) -> maps`.

    `images` are uint8 `(batch, size, size, 3)` and `classes` `(batch,)`. `maps` are `(batch, rows, columns)`,
    with the rows and columns of the block's activations. A map is the positive part of the weighted sum of
    the channels. The weight of a channel is the gradient of the class's logit, averaged over the map. Maps
    are divided by their largest value; a map without evidence for the class is all 0.

    Args:
        graphdef: Definition of the model, in inference mode.
        preprocessing: Preprocessing of the weights.
        block: Name of the block, for example that of `last_spatial_block`.
    """

    def grad_cam(arrays: Arrays, images: jax.Array, classes: jax.Array) -> jax.Array:
        x = merge(graphdef, arrays).backbone(preprocessing.normalize(images), stop=block)

        def evidence(x: jax.Array) -> jax.Array:
            logits = merge(graphdef, arrays)(x, start=block)
            return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

        shape = _grid(x.shape[1:])
        assert shape is not None, f"the activations of {block} have no rows and columns"
        gradient, x = (each.reshape(len(x), *shape, -1) for each in (jax.grad(evidence)(x), x))
        weights = gradient.mean((1, 2), keepdims=True)
        maps = jax.nn.relu((weights * x).sum(-1))
        return maps / jnp.maximum(maps.max((1, 2), keepdims=True), 1e-12)

    return grad_cam


def _grid(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns rows and columns of activations: of a map, or of the patch tokens of a square image."""
    if len(shape) == 3:
        rows, columns, _ = shape
    elif len(shape) == 2 and math.isqrt(shape[0]) ** 2 == shape[0]:
        rows = columns = math.isqrt(shape[0])
    else:
        return None
    return (rows, columns) if rows > 1 and columns > 1 else None
