"""The frozen prefix: the part of the network that runs once over the data."""

import math
from collections.abc import Callable, Mapping

import jax
from flax import nnx

from transfer_jax.models.functional import block_of, cast, merge
from transfer_jax.models.preprocessing import Preprocessing

Prefix = Callable[[Mapping[str, jax.Array], jax.Array], jax.Array]

_CPU_SLICE = 2
"""Images that a CPU works on at a time: their activations stay in its cache. 1.6x the speed of 32 at once."""


def make_prefix(
    graphdef: nnx.GraphDef, boundary: str, preprocessing: Preprocessing, dtype: jax.typing.DTypeLike
) -> Prefix:
    """The pure function from arrays and uint8 images `(batch, size, size, 3)` to the features at a boundary.

    Args:
        graphdef: Definition of the model; the blocks of the prefix are in inference mode.
        boundary: The block to stop at.
        preprocessing: How the weights want their input.
        dtype: Precision to compute in, and of the features.
    """

    def prefix(arrays: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
        def features(images: jax.Array) -> jax.Array:
            model = merge(graphdef, cast(arrays, dtype))
            return model.backbone(preprocessing.normalize(images).astype(dtype), stop=boundary)

        def sliced(images: jax.Array) -> jax.Array:
            size = math.gcd(len(images), _CPU_SLICE)
            out = jax.lax.map(features, images.reshape(-1, size, *images.shape[1:]))
            return out.reshape(-1, *out.shape[2:])

        return jax.lax.platform_dependent(images, cpu=sliced, default=features)

    return prefix


def prefix_arrays(
    arrays: Mapping[str, jax.Array], boundary: str, block_names: tuple[str, ...]
) -> dict[str, jax.Array]:
    """The parameters and statistics that the features at a boundary depend on."""
    below = set(block_names[: block_names.index(boundary) + 1])
    return {path: array for path, array in arrays.items() if block_of(path) in below}
