"""Attention between tokens, with the implementation for each platform and precision.

- CPUs, and float32 everywhere: `plain_attention`, with logits in float32.
- TPUs in bfloat16: the kernel of `attention_kernel.py` where it applies, else `half_attention`.
- NVIDIA GPUs in half precision: cuDNN's flash attention where it applies, else `half_attention`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn import attention_kernel
from transfer_jax.nn.attention_kernel import Sizes
from transfer_jax.nn.half_attention import half_attention
from transfer_jax.nn.per_platform import TpuKernel
from transfer_jax.nn.plain_attention import plain_attention
from transfer_jax.nn.rotation import Rotation

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
    if bias is None and query.shape == key.shape and _suits_kernel(query, Sizes(*query.shape)):
        on_tpu = _by_kernel
    cudnn = _CUDNN if _suits_cudnn(query, bias) else None
    return _dispatch(arrays, _full_attention, on_tpu, half_attention, cudnn)


def attend_packed(
    qkv: jax.Array, heads: int, bias: jax.Array | None = None, rotation: Rotation | None = None
) -> jax.Array:
    """Returns the attention `(batch, tokens, width)` of tokens to all tokens.

    Args:
        qkv: Queries, keys and values `(batch, tokens, 3 x width)`, in that order.
        heads: Number of heads.
        bias: Addend of `qkv`, `(3 x width,)`; None for none.
        rotation: The rotation of queries and keys, after the bias; None for none.
    """
    batch, tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    distance = rotation.distance if rotation is not None else 0
    sizes = Sizes(batch, tokens, heads, width // heads, distance)
    bias = None if bias is None else bias.astype(qkv.dtype)
    full, half, cudnn = (
        functools.partial(_unpacked, heads, each, rotation)
        for each in (_full_attention, half_attention, _CUDNN)
    )
    on_tpu = functools.partial(_packed_by_kernel, sizes, rotation) if _suits_kernel(qkv, sizes) else half
    arrays = (qkv,) if bias is None else (qkv, bias)
    return _dispatch(arrays, full, on_tpu, half, cudnn if _suits_cudnn(qkv, None, sizes.channels) else None)


def _full_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    if key.shape[2] == query.shape[2]:
        return plain_attention(query, key, value, bias)
    return jax.nn.dot_product_attention(query, key, value, bias)


def _unpacked(
    heads: int,
    function: _Function,
    rotation: Rotation | None,
    qkv: jax.Array,
    bias: jax.Array | None = None,
) -> jax.Array:
    """Applies an attention of queries, keys and values to their joint array, its bias and a rotation."""
    if bias is not None:
        qkv += bias
    batch, tokens, width = qkv.shape
    parts = qkv.reshape(batch, tokens, 3, heads, -1)
    query, key, value = (parts[:, :, index] for index in range(3))
    if rotation is not None:
        query, key = rotation(query), rotation(key)
    return function(query, key, value).reshape(batch, tokens, width // 3)


def _dispatch(
    arrays: tuple[jax.Array, ...],
    full: _Function,
    on_tpu: _Function,
    half: _Function,
    cudnn: _Function | None,
) -> jax.Array:
    if jnp.promote_types(arrays[0].dtype, jnp.float32) == arrays[0].dtype:
        return full(*arrays)
    platforms: dict[str, Any] = {"cpu": full, "tpu": on_tpu}
    if cudnn is not None:
        platforms["cuda"] = cudnn
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


def _suits_kernel(x: jax.Array, sizes: Sizes) -> bool:
    # `jax.shard_map` with `check_vma` follows which arrays differ between devices, but not through kernels.
    followed = getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", None)
    return x.dtype == jnp.bfloat16 and not followed and sizes.fits


_CUDNN = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")


def _by_kernel(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    sizes = Sizes(*query.shape)
    flat = (x.reshape(sizes.batch, sizes.tokens, sizes.width) for x in (query, key, value))
    found: Any = _kernel(sizes, _Arrays(tuple(flat)))
    return found.reshape(query.shape)


def _packed_by_kernel(
    sizes: Sizes, rotation: Rotation | None, qkv: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    return _kernel(sizes, _Arrays((qkv,), bias, rotation and rotation.table(sizes.lanes)))


class _Arrays(NamedTuple):
    """The arrays of the kernel: joint or separate queries, keys and values, their bias, and a rotation."""

    inputs: tuple[jax.Array, ...]
    bias: jax.Array | None = None
    table: jax.Array | None = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel(sizes: Sizes, arrays: _Arrays) -> jax.Array:
    leaves, tree = jax.tree.flatten(arrays)
    return _FORWARD((sizes, tree), *leaves)[0]


def _kernel_forward(sizes: Sizes, arrays: _Arrays) -> Any:
    return _kernel(sizes, arrays), arrays


def _kernel_backward(sizes: Sizes, arrays: _Arrays, gradient: jax.Array) -> Any:
    leaves, tree = jax.tree.flatten(arrays)
    found = _BACKWARD((sizes, tree), gradient, *leaves)
    count = len(arrays.inputs)
    of_bias = None if arrays.bias is None else found[count]
    return (_Arrays(tuple(found[:count]), of_bias),)


_kernel.defvjp(_kernel_forward, _kernel_backward)


_Static = tuple[Sizes, Any]
"""The sizes, and the structure of `_Arrays`."""


def _forward_by_kernel(static: _Static, *leaves: jax.Array) -> list[jax.Array]:
    sizes, tree = static
    return [attention_kernel.forward(sizes, *jax.tree.unflatten(tree, leaves))]


def _forward_plain(static: _Static, *leaves: jax.Array) -> list[jax.Array]:
    """Returns the attention of the kernel's arguments without a kernel."""
    sizes, tree = static
    inputs, bias, table = jax.tree.unflatten(tree, leaves)
    if len(inputs) == 1:
        rotation = None if table is None else Rotation.of_table(table, sizes.channels, sizes.distance)
        return [_unpacked(sizes.heads, half_attention, rotation, inputs[0], bias)]
    shape = (sizes.batch, sizes.tokens, sizes.heads, sizes.channels)
    query, key, value = (x.reshape(shape) for x in inputs)
    return [half_attention(query, key, value).reshape(inputs[0].shape)]


def _backward_by_kernel(static: _Static, gradient: jax.Array, *leaves: jax.Array) -> list[jax.Array]:
    sizes, tree = static
    inputs, bias, table = jax.tree.unflatten(tree, leaves)
    found, of_bias = attention_kernel.backward(sizes, inputs, bias, gradient, table)
    return found if of_bias is None else [*found, of_bias]


def _backward_plain(static: _Static, gradient: jax.Array, *leaves: jax.Array) -> list[jax.Array]:
    _, tree = static
    arrays = jax.tree.unflatten(tree, leaves)
    found = jax.vjp(
        lambda inputs, bias: _forward_plain(
            static, *jax.tree.leaves(arrays._replace(inputs=inputs, bias=bias))
        )[0],
        arrays.inputs,
        arrays.bias,
    )[1](gradient)
    return jax.tree.leaves(found)


_FORWARD = TpuKernel(_forward_by_kernel, _forward_plain)
_BACKWARD = TpuKernel(_backward_by_kernel, _backward_plain)
