"""A U-Net: the encoder is frozen, the decoder trains and reads the maps of three depths."""

import jax
import jax.numpy as jnp

from strangers.case import Case, images, random_like
from transfer_jax.freezing import labels, match

_WIDTHS = (16, 32, 64, 128)


def unet(examples: int, size: int) -> Case:
    """Returns a U-Net whose decoder trains.

    Args:
        examples: Examples of a batch.
        size: Side of the images in pixels.
    """
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def kernel(inputs, outputs):
        return jax.random.normal(next(keys), (3, 3, inputs, outputs)) / (9 * inputs) ** 0.5

    pairs = zip((3, *_WIDTHS), _WIDTHS, strict=False)
    down = [[kernel(one, other), kernel(other, other), kernel(other, other)] for one, other in pairs]
    up = [kernel(_WIDTHS[i] + _WIDTHS[i - 1], _WIDTHS[i - 1]) for i in (3, 2, 1)]
    params = random_like({"down": down, "up": up, "last": kernel(_WIDTHS[0], 5)})

    def convolve(x, kernel, stride=1):
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        groups = x.reshape(*x.shape[:3], -1, 1) if x.shape[-1] < 16 else x.reshape(*x.shape[:3], 8, -1)
        mean = groups.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(groups - mean).mean((1, 2, 4), keepdims=True)
        return jax.nn.silu(((groups - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(x.shape))

    def function(params, state, batch, key):
        x, skips = batch["image"], []
        for first, *others in params["down"]:
            x = convolve(x, first, stride=2)
            for kernel in others:
                x = convolve(x, kernel)
            skips.append(x)
        x = skips.pop()
        for kernel in params["up"]:
            skip = skips.pop()
            wider = jax.image.resize(x, (*skip.shape[:3], x.shape[-1]), "bilinear")
            x = convolve(jnp.concatenate([wider, skip], -1), kernel)
        return convolve(x, params["last"])

    block_bytes = sum(4 * width * (size // 2 ** (i + 1)) ** 2 for i, width in enumerate(_WIDTHS))
    found = labels(params, match("^up|^last"))
    return Case("decoder", function, params, found, {"image": images(examples, size)}, block_bytes)
