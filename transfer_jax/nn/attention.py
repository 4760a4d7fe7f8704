"""Attention between tokens, with the implementation for each platform and precision.

- CPUs, and float32 everywhere: `plain_attention`, with logits in float32.
- TPUs in bfloat16: the kernel of `attention_kernel.py` where it applies, else `half_attention`.
- NVIDIA GPUs in half precision: cuDNN's flash attention where it applies, else `half_attention`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn import attention_kernel
from transfer_jax.nn.attention_kernel import Sizes
from transfer_jax.nn.half_attention import half_attention
from transfer_jax.nn.per_platform import TpuKernel
from transfer_jax.nn.plain_attention import plain_attention

_Function = Callable[..., jax.Array]
_AMPERE = 8.0
"""The first compute capability with cuDNN's flash attention."""


def attend(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Returns the attention, `(batch, queries, heads, channels)`; logits are divided by `channels ** 0.5`.

    Args:
        query: `(batch, queries, heads, channels)`.
        key: `(batch, keys, heads, channels)`, or a divisor of the heads, each for several heads of queries.
        value: As `key`.
        bias: Addend of the logits, `(batch or 1, heads, queries, keys)`; None for none.
    """
    arrays = (query, key, value) if bias is None else (query, key, value, bias)
    on_tpu = half_attention
    if bias is None and query.shape == key.shape and _suits_kernel(query, *query.shape):
        on_tpu = _by_kernel
    return _dispatch(arrays, _full_attention, on_tpu, half_attention, _suits_cudnn(query, bias))


def attend_packed(qkv: jax.Array, heads: int, bias: jax.Array | None = None) -> jax.Array:
    """Returns the attention `(batch, tokens, width)` of tokens to all tokens.

    Args:
        qkv: Queries, keys and values `(batch, tokens, 3 x width)`, in that order.
        heads: Number of heads.
        bias: Addend of `qkv`, `(3 x width,)`; None for none.
    """
    batch, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    shape = (batch, tokens, heads, width // heads)
    arrays = (qkv,) if bias is None else (qkv, bias.astype(qkv.dtype))
    full, half = (functools.partial(_unpacked, heads, each) for each in (_full_attention, half_attention))
    on_tpu = functools.partial(_packed_by_kernel, Sizes(*shape)) if _suits_kernel(qkv, *shape) else half
    return _dispatch(arrays, full, on_tpu, half, _suits_cudnn(qkv, None, shape[-1]), heads)


def _full_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    if key.shape[2] == query.shape[2]:
        return plain_attention(query, key, value, bias)
    return jax.nn.dot_product_attention(query, key, value, bias)


def _unpacked(heads: int, function: _Function, qkv: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Applies an attention of queries, keys and values to their joint array and its bias."""
    if bias is not None:
        qkv += bias
    batch, tokens, width = qkv.shape
    parts = qkv.reshape(batch, tokens, 3, heads, -1)
    return function(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]).reshape(batch, tokens, width // 3)


def _dispatch(
    arrays: tuple[jax.Array, ...],
    full: _Function,
    on_tpu: _Function,
    half: _Function,
    suits_cudnn: bool,
    heads: int | None = None,
) -> jax.Array:
    if jnp.promote_types(arrays[0].dtype, jnp.float32) == arrays[0].dtype:
        return full(*arrays)
    platforms: dict[str, Any] = {"cpu": full, "tpu": on_tpu}
    if suits_cudnn:
        cudnn = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
        platforms["cuda"] = cudnn if heads is None else functools.partial(_unpacked, heads, cudnn)
    return lax.platform_dependent(*arrays, default=half, **platforms)


def _suits_cudnn(x: jax.Array, bias: jax.Array | None, channels: int | None = None) -> bool:
    """Returns whether cuDNN has an attention for the shapes, and there is a GPU, which JAX asks."""
    channels = channels or x.shape[-1]
    if bias is not None or channels % 8 or channels > 128 or jax.default_backend() != "gpu":
        return False
    capability = getattr(jax.devices()[0], "compute_capability", None)  # AMD's GPUs have none of this form.
    try:
        return float(capability) >= _AMPERE  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return False


def _suits_kernel(x: jax.Array, batch: int, tokens: int, heads: int, channels: int) -> bool:
    # `jax.shard_map` with `check_vma` follows which arrays differ between devices, but not through kernels.
    followed = getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", None)
    return x.dtype == jnp.bfloat16 and not followed and Sizes(batch, tokens, heads, channels).fits


def _plain(sizes: Sizes, inputs: tuple[jax.Array, ...], bias: jax.Array | None) -> jax.Array:
    """Returns the attention of the kernel's arguments without a kernel."""
    if len(inputs) == 1:
        return _unpacked(sizes.heads, half_attention, inputs[0], bias)
    shape = (sizes.batch, sizes.tokens, sizes.heads, sizes.channels)
    query, key, value = (x.reshape(shape) for x in inputs)
    return half_attention(query, key, value).reshape(inputs[0].shape)


def _by_kernel(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    batch, tokens, heads, channels = query.shape
    flat = (x.reshape(batch, tokens, heads * channels) for x in (query, key, value))
    found: Any = _kernel(Sizes(batch, tokens, heads, channels), tuple(flat), None)
    return found.reshape(query.shape)


def _packed_by_kernel(sizes: Sizes, qkv: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    return _kernel(sizes, (qkv,), bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel(sizes: Sizes, inputs: tuple[jax.Array, ...], bias: jax.Array | None) -> jax.Array:
    (found,) = _FORWARD(sizes, *inputs, *(() if bias is None else (bias,)))
    return found


def _kernel_forward(sizes: Sizes, inputs: Any, bias: Any) -> Any:
    return _kernel(sizes, inputs, bias), (inputs, bias)


def _kernel_backward(sizes: Sizes, kept: Any, gradient: jax.Array) -> Any:
    inputs, bias = kept
    found = _BACKWARD(sizes, gradient, *inputs, *(() if bias is None else (bias,)))
    return tuple(found[: len(inputs)]), None if bias is None else found[-1]


_kernel.defvjp(_kernel_forward, _kernel_backward)


def _arguments(arrays: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    """Returns the inputs and the bias, from one or three inputs that a bias may follow."""
    return (arrays[:-1], arrays[-1]) if len(arrays) in (2, 4) else (arrays, None)


def _forward_by_kernel(sizes: Sizes, *arrays: jax.Array) -> list[jax.Array]:
    return [attention_kernel.forward(sizes, *_arguments(arrays))]


def _forward_plain(sizes: Sizes, *arrays: jax.Array) -> list[jax.Array]:
    return [_plain(sizes, *_arguments(arrays))]


def _backward_by_kernel(sizes: Sizes, gradient: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
    found, of_bias = attention_kernel.backward(sizes, *_arguments(arrays), gradient)
    return found if of_bias is None else [*found, of_bias]


def _backward_plain(sizes: Sizes, gradient: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
    return list(jax.vjp(lambda *arrays: _forward_plain(sizes, *arrays)[0], *arrays)[1](gradient))


_FORWARD = TpuKernel(_forward_by_kernel, _forward_plain)
_BACKWARD = TpuKernel(_backward_by_kernel, _backward_plain)
