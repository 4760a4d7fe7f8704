"""Random keys and the drop rate of one layer of a scan over equal layers."""

import jax


@jax.tree_util.register_pytree_node_class
class LayerRngs:
    """The keys that one of several equal layers draws, as `nnx.Rngs` would give them without a scan.

    Args:
        key: Key of the stream.
        first: Number of keys that were drawn from the stream before this layer.
        rate: Rate of all its active dropout layers.
    """

    def __init__(self, key: jax.Array, first: jax.Array, rate: jax.Array) -> None:
        self.key, self.first, self.rate, self.drawn = key, first, rate, 0

    def dropout(self) -> jax.Array:
        """Returns the next key."""
        self.drawn += 1
        return jax.random.fold_in(self.key, self.first + (self.drawn - 1))

    def tree_flatten(self) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        """Returns the arrays."""
        return (self.key, self.first, self.rate), None

    @classmethod
    def tree_unflatten(cls, _: None, arrays: tuple[jax.Array, jax.Array, jax.Array]) -> "LayerRngs":
        """Returns the keys of a layer that has drawn none."""
        return cls(*arrays)
