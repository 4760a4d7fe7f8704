"""Where the evidence for a class lies in an image, in a network whose last activations are a picture.

Source: Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.flat_arrays import Arrays, merge
from transfer_jax.models.preprocessing import Preprocessing

GradCam = Callable[[Arrays, jax.Array, jax.Array], jax.Array]


def last_spatial_block(row_shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The last block whose activations are a picture of more than one row and column; None if none are.

    Args:
        row_shapes: The shape of one image's activations at each block, in order.
    """
    return next((block for block in reversed([*row_shapes]) if _grid(row_shapes[block])), None)


def make_grad_cam(graphdef: nnx.GraphDef, preprocessing: Preprocessing, block: str) -> GradCam:
    """The pure function `(arrays, images, classes) -> maps`.

    `images` are uint8 `(batch, size, size, 3)` and `classes` `(batch,)`. A map, `(rows, columns)` of the
    block's activations, is the positive part of their sum over channels, each weighted by the mean over the
    map of the gradient of the class's logit; in shares of its largest value, and all 0 if nothing speaks for
    the class.

    Args:
        graphdef: Definition of the model, in inference mode.
        preprocessing: How the weights want images.
        block: The block whose activations are looked at, such as `last_spatial_block`.
    """

    def grad_cam(arrays: Arrays, images: jax.Array, classes: jax.Array) -> jax.Array:
        x = merge(graphdef, arrays).backbone(preprocessing.normalize(images), stop=block)

        def evidence(x: jax.Array) -> jax.Array:
            logits = merge(graphdef, arrays)(x, start=block)
            return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

        shape = _grid(x.shape[1:])
        assert shape is not None, f"the activations of {block} are no picture"
        gradient, x = (each.reshape(len(x), *shape, -1) for each in (jax.grad(evidence)(x), x))
        weights = gradient.mean((1, 2), keepdims=True)
        maps = jax.nn.relu((weights * x).sum(-1))
        return maps / jnp.maximum(maps.max((1, 2), keepdims=True), 1e-12)

    return grad_cam


def _grid(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of activations: of a picture, or of tokens that are the patches of a square one."""
    if len(shape) == 3:
        rows, columns, _ = shape
    elif len(shape) == 2 and math.isqrt(shape[0]) ** 2 == shape[0]:
        rows = columns = math.isqrt(shape[0])
    else:
        return None
    return (rows, columns) if rows > 1 and columns > 1 else None
