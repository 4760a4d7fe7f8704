"""Attention over the channels of a residual branch, as timm's `SEModule` and `EcaModule`.

Sources: Hu et al. 2017, arXiv:1709.01507 (`se`); Wang et al. 2019, arXiv:1910.03151 (`eca`).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.family import LibraryLayer
from transfer_jax.models.mbconv import SqueezeExcite, Style
from transfer_jax.nn.initializers import normal

KINDS = ("", "se", "eca")
_STYLE = Style(activation=jax.nn.relu, squeeze=jax.nn.relu)


class EfficientAttention(nnx.Module):
    """Weights of the channels, computed from the image's mean by a convolution along the channels.

    It maps `(batch, height, width, features)` to the same shape.
    """

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        size = int(abs(math.log2(features) + 1) / 2)
        size = max(size if size % 2 else size + 1, 3)
        self.taps = nnx.Param(normal(size**-0.5)(rngs.params(), (size,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        taps, mean = self.taps[...].astype(x.dtype), x.mean(axis=(1, 2))
        size, features = len(taps), mean.shape[-1]
        padded = jnp.pad(mean, ((0, 0), (size // 2, size // 2)))
        mixed = sum(taps[tap] * padded[:, tap : tap + features] for tap in range(size))
        return x * jax.nn.sigmoid(mixed)[:, None, None]


def channel_attention(
    kind: str, features: int, squeeze: float, rngs: nnx.Rngs
) -> SqueezeExcite | EfficientAttention | None:
    """Returns the attention over the channels of a branch; None if there is none.

    Args:
        kind: One of `KINDS`; empty for none.
        features: Number of channels.
        squeeze: Fraction of the channels inside of `se`. Their number is rounded to a multiple of 8.
        rngs: Source of the initial parameters.

    Raises:
        ValueError: If there is no attention of that kind.
    """
    match kind:
        case "":
            return None
        case "se":
            return SqueezeExcite(features, squeezed_channels(features, squeeze), _STYLE, rngs)
        case "eca":
            return EfficientAttention(features, rngs)
    raise ValueError(f"attention must be one of {KINDS}, got {kind!r}")


def squeezed_channels(features: int, squeeze: float) -> int:
    """Returns the channels inside of squeeze and excitation: a multiple of 8 near `squeeze * features`."""
    return max(8, int(features * squeeze + 4) // 8 * 8)


def torch_attention(module: str, layer: str) -> str | LibraryLayer:
    """Returns timm's name of a layer of the attention.

    Args:
        module: Name of the attention in timm.
        layer: Name of its layer, or of its parameter.
    """
    if layer == "taps":
        return LibraryLayer((f"{module}.conv.weight",), leading=2)
    return f"{module}.{'fc1' if layer == 'reduce' else 'fc2'}"
