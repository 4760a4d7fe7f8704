"""The peak speed of a device: the published one of known chips, otherwise that of a large matrix product."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.planning.topology import CHIPS

_TPUS = {
    **dict.fromkeys(("TPU v5 lite", "TPU v5e"), CHIPS["v5e"]),
    **dict.fromkeys(("TPU v5", "TPU v5p"), CHIPS["v5p"]),
    **dict.fromkeys(("TPU v6 lite", "TPU v6e"), CHIPS["v6e"]),
}
_GPUS = {
    "A10G": (70e12, 35e12),
    "A10": (125e12, 62.5e12),
    "A100": (312e12, 156e12),
    "H100 PCIe": (756e12, 378e12),
    "H100 NVL": (835e12, 417e12),
    "H100": (989e12, 494e12),
    "H200": (989e12, 494e12),
    "B200": (2250e12, 1125e12),
    "L4": (121e12, 60e12),
    "L40S": (362e12, 183e12),
    "T4": (None, 8.1e12),
    "V100": (None, 15.7e12),
}
"""FLOPs per second of matrix products by the words of a device's name: in bfloat16, and in float32.

Source: NVIDIA's data sheets, dense products on tensor cores. XLA multiplies float32 arrays as TF32 where the
chip has it. T4 and V100 have no tensor cores for bfloat16.
"""
_SIDES = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
"""Side of the matrices of a measurement, by platform."""
_REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Peak:
    """The largest number of operations that a device reaches.

    Attributes:
        flops: FLOPs per second of one device.
        source: `published`, or how it was measured.
    """

    flops: float
    source: str


def peak_of(device: Any, dtype: jax.typing.DTypeLike) -> Peak:
    """Returns the peak of a device in a precision.

    Args:
        device: A device of JAX.
        dtype: The precision of the operands, `float32` or `bfloat16`.
    """
    published = published_peak(device.device_kind, dtype)
    return measured_peak(device, dtype) if published is None else Peak(published, "published")


def published_peak(kind: str, dtype: jax.typing.DTypeLike) -> float | None:
    """Returns the published FLOPs per second of a chip; None if it is not known here.

    Args:
        kind: The `device_kind` of a device of JAX, such as `NVIDIA H100 80GB HBM3` or `TPU v5 lite`.
        dtype: The precision of the operands.
    """
    if kind in _TPUS:
        return _TPUS[kind].flops  # By default, products of float32 arrays are computed in bfloat16.
    words = set(kind.replace("-", " ").split())
    for name, (half, single) in _GPUS.items():
        if words.issuperset(name.split()):
            return half if jnp.dtype(dtype) == jnp.bfloat16 else single
    return None


def measured_peak(device: Any, dtype: jax.typing.DTypeLike) -> Peak:
    """Returns the speed of the fastest of a few large matrix products on a device.

    Args:
        device: A device of JAX.
        dtype: The precision of the operands.
    """
    side = _SIDES.get(device.platform, 4096)
    matrix = jax.device_put(jnp.full((side, side), 1 / side, dtype), device)
    product = jax.jit(jnp.matmul)
    took = []
    product(matrix, matrix).block_until_ready()
    for _ in range(_REPEATS):
        started = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        took.append(time.perf_counter() - started)
    return Peak(2 * side**3 / min(took), f"measured, a product of {side} x {side} matrices")
