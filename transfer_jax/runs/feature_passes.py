"""The computation of one pass over images: the features of a network at several depths, pooled or whole."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.features import in_slices, prefix_arrays
from transfer_jax.freezing.freeze_check import array_hashes, combined_hash
from transfer_jax.freezing.trees import leaves_by_path
from transfer_jax.models.flat_arrays import cast, merge
from transfer_jax.models.preprocessing import Preprocessing

Pool = str | Callable[[jax.Array], jax.Array] | None
"""`mean`, a function of features `(batch, …)`, or None for features as they are."""


class Depths(Protocol):
    """The features at several depths as a function, such as a `DepthSplit`."""

    def prefix(self, params: Any, batch: Any, state: Any = None) -> dict[str, jax.Array]:
        """Computes the features of a batch, by block."""
        ...

    def digest(self, params: Any, state: Any = None) -> str:
        """Returns a hash of the operations and the arrays that they use."""
        ...


@dataclasses.dataclass(frozen=True)
class BackboneDepths:
    """The outputs of several blocks of a backbone.

    Attributes:
        graphdef: Definition of the classifier, in inference mode.
        blocks: The blocks of the backbone, input side first.
        names: The blocks whose outputs are the features, in this order.
        preprocessing: The normalization of the images.
        dtype: Precision of the computation.
        pool: The pooling. It belongs to the slices of a batch, so that whole features need little memory.
        shapes: The shapes of a batch.
    """

    graphdef: nnx.GraphDef
    blocks: tuple[str, ...]
    names: tuple[str, ...]
    preprocessing: Preprocessing
    dtype: jax.typing.DTypeLike
    pool: Pool
    shapes: Mapping[str, jax.ShapeDtypeStruct]

    def prefix(
        self, params: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], state: Any = None
    ) -> dict[str, jax.Array]:
        """Computes the features of a batch, by block; of several arrays, as `BLOCK/NAME`.

        Args:
            params: The parameters and running statistics by path.
            batch: `image`, uint8 `(batch, size, size, 3)`; or the inputs of a backbone that takes others.
            state: Not used.
        """
        del state
        arrays = cast(params, self.dtype)

        def features(x: Any) -> dict[str, jax.Array]:
            backbone, taps = merge(self.graphdef, arrays).backbone, {}
            if backbone.taps and self.names[-1] == self.blocks[-1]:  # Made of the outputs of all blocks.
                taps = {self.names[-1]: backbone(x)}
            return _flat({**backbone.activations(x, None, self.names), **taps}, self.pool)

        def of_images(images: jax.Array) -> dict[str, jax.Array]:
            return features(self.preprocessing.normalize(images).astype(self.dtype))

        if merge(self.graphdef, arrays).backbone.inputs is not None:
            return features(batch)
        return in_slices(of_images, batch["image"])

    def digest(self, params: Mapping[str, jax.Array], state: Any = None) -> str:
        """Returns a hash of the operations, and of the arrays up to the last block of `names`."""
        del state
        used = prefix_arrays(params, self.names[-1], self.blocks)
        program = str(jax.make_jaxpr(self.prefix)(dict(params), self.shapes))
        described = (re.sub(r"0x[0-9a-f]+", "", program), combined_hash(array_hashes(used)))
        return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _flat(features: Mapping[str, Any], pool: Pool) -> dict[str, jax.Array]:
    """Returns pooled features by block, or by block and name if they are several arrays."""
    found: dict[str, jax.Array] = {}
    for block, value in features.items():
        each = (
            {f"{block}/{name}": x for name, x in value.items()}
            if isinstance(value, Mapping)
            else {block: value}
        )
        found |= {name: pooled(x, pool) for name, x in each.items()}
    return found


@dataclasses.dataclass(frozen=True)
class FeatureShape:
    """The shape of the features at one depth.

    Attributes:
        shape: Shape for one example.
        dtype: Name of the dtype.
        bytes: Size for one example, in bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    bytes: int


class FeaturePass:
    """The computation of one pass over images.

    It has the attributes and functions of a `Split` that `cache_features` uses.

    Args:
        depths: The features by block.
        params: The parameters.
        state: The other arrays; None if there are none.
        shapes: The shapes of a batch.
        blocks: The blocks in the order of the results.
        pool: The pooling, if it is not part of `depths`.

    Attributes:
        params: The parameters.
        state: The other arrays.
        features: The features of one example by name.
        prefix_inputs: Shape and dtype of the arrays of one example by path.
        inputs: Empty: nothing but the features is needed.
    """

    inputs: tuple[str, ...] = ()

    def __init__(
        self, depths: Depths, params: Any, state: Any, shapes: Any, blocks: Sequence[str], pool: Pool
    ) -> None:
        self.params, self.state = params, state
        self._depths, self._pool, self._shapes = depths, pool, shapes
        found = jax.eval_shape(self.prefix, params, shapes, state)
        order = {block: number for number, block in enumerate(blocks)}
        names = sorted(found, key=lambda name: order.get(name, order.get(name.rpartition("/")[0], 0)))
        self.features = {name: _shape_of(found[name]) for name in names}
        self.prefix_inputs = {
            path: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
            for path, leaf in leaves_by_path(shapes).items()
        }
        self.prefix_inputs = {
            path: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
            for path, leaf in leaves_by_path(shapes).items()
        }

    def prefix(self, params: Any, batch: Any, state: Any = None) -> dict[str, jax.Array]:
        """Computes the features of a batch, pooled."""
        found = self._depths.prefix(params, batch, state)
        return {name: pooled(value, self._pool) for name, value in found.items()}

    def digest(self, params: Any, state: Any = None) -> str:
        """Returns a hash of the operations, the pooling and the arrays that they use."""
        found = jax.eval_shape(self._depths.prefix, params, self._shapes, state)
        pooling = [
            re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(lambda x: pooled(x, self._pool))(each)))
            for each in found.values()
        ]
        described = "\n".join([self._depths.digest(params, state), *found, *pooling])
        return hashlib.sha256(described.encode()).hexdigest()


def pooled(features: jax.Array, pool: Pool) -> jax.Array:
    """Returns features `(batch, …)` after pooling.

    Args:
        features: The features.
        pool: `mean` averages `(batch, …, channels)` in float32 over all axes between the first and the last,
            such as pixels or tokens. A function is called with the features. None changes nothing.
    """
    if pool is None:
        return features
    if callable(pool):
        return pool(features)
    axes = tuple(range(1, features.ndim - 1))
    return features.astype(jnp.float32).mean(axes) if axes else features.astype(jnp.float32)


def _shape_of(features: jax.ShapeDtypeStruct) -> FeatureShape:
    shape = tuple(features.shape[1:])
    one = jax.ShapeDtypeStruct(shape, features.dtype)
    return FeatureShape(shape, str(features.dtype), one.size * one.dtype.itemsize)
