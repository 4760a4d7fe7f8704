"""The frozen prefix: the part of the network that runs once over the data."""

from collections.abc import Callable, Mapping

import jax
from flax import nnx

from transfer_jax.models.functional import block_of, cast, merge
from transfer_jax.models.preprocessing import Preprocessing

Prefix = Callable[[Mapping[str, jax.Array], jax.Array], jax.Array]


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
        model = merge(graphdef, cast(arrays, dtype))
        return model.backbone(preprocessing.normalize(images).astype(dtype), stop=boundary)

    return prefix


def prefix_arrays(
    arrays: Mapping[str, jax.Array], boundary: str, block_names: tuple[str, ...]
) -> dict[str, jax.Array]:
    """The parameters and statistics that the features at a boundary depend on."""
    below = set(block_names[: block_names.index(boundary) + 1])
    return {path: array for path, array in arrays.items() if block_of(path) in below}
