"""Rotary position embeddings: pairs of channels that are rotated by an angle for each token.

Source: Su et al. 2021, arXiv:2104.09864.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)
class Rotation:
    """A rotation of the queries and keys of all heads.

    Attributes:
        sin: The sine of the angle of each pair, float32 `(tokens, channels / 2)`.
        cos: The cosine.
        halves: Whether a pair consists of a channel of the first half of the channels and one of the second;
            otherwise its channels are neighbors.
    """

    sin: jax.Array
    cos: jax.Array
    halves: bool

    @property
    def distance(self) -> int:
        """The number of channels from the first one of a pair to the second one."""
        return self.sin.shape[1] if self.halves else 1

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns rotated queries or keys `(batch, tokens, heads, channels)`."""
        channels, axis = x.shape[-1], -2 if self.halves else -1
        sin, cos = self.sin[:, None], self.cos[:, None]
        pairs = x.reshape(*x.shape[:-1], *((2, channels // 2) if self.halves else (channels // 2, 2)))
        first, second = jnp.moveaxis(pairs.astype(jnp.promote_types(x.dtype, jnp.float32)), axis, 0)
        rotated = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis)
        return rotated.reshape(x.shape).astype(x.dtype)

    def table(self, lanes: int) -> jax.Array:
        """Returns the factors of each channel and of the other one of its pair, `(2, tokens, lanes)`.

        Args:
            lanes: Channels of several heads, a multiple of those of a head.
        """
        factors = []
        for first, second in ((self.cos, self.cos), (-self.sin, self.sin)):
            joined = jnp.concatenate if self.halves else jnp.stack
            of_head = joined([first, second], -1).reshape(len(first), -1)
            factors.append(jnp.tile(of_head, (1, lanes // of_head.shape[1])))
        return jnp.stack(factors)

    @classmethod
    def of_table(cls, table: jax.Array, channels: int, distance: int) -> "Rotation":
        """Returns the rotation of a `table` for heads of some channels, with a `distance`."""
        halves = distance > 1 or channels == 2
        cos, sin = (
            x[:, channels // 2 : channels] if halves else x[:, 1:channels:2] for x in (table[0], table[1])
        )
        return cls(sin, cos, halves)
