"""The mesh of a run's devices, with axes that split the batch, the parameters and some matrices."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
"""The axes of a mesh. Slices are along `data`, one after the other."""


def make_mesh(
    devices: Sequence[Any], *, fsdp: int = 1, tensor: int = 1, slices: int = 1, axes: Sequence[str] = ()
) -> Mesh:
    """Returns the mesh of some devices.

    Args:
        devices: The devices.
        fsdp: Number of devices along `fsdp`.
        tensor: Number of devices along `tensor`.
        slices: Number of slices.
        axes: Names of the axes to keep; the others have one device. Empty keeps all.
    """
    sizes = {DATA: len(devices) // (fsdp * tensor), FSDP: fsdp, TENSOR: tensor}
    sizes = {axis: size for axis, size in sizes.items() if not axes or axis in axes}
    types = (AxisType.Auto,) * len(sizes)
    if slices > 1:
        shape = (len(devices) // (fsdp * tensor * slices), fsdp, tensor)
        return Mesh(_sliced(shape, slices, devices), tuple(sizes), axis_types=types)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), types, devices=devices)


def slices_of(devices: Sequence[Any]) -> int:
    """Returns the number of TPU slices that devices are in."""
    return len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1


def _sliced(shape: tuple[int, ...], slices: int, devices: Sequence[Any]) -> np.ndarray:
    """Returns a mesh of slices along its first axis, each of a shape.

    Only the first axis is across slices, whose network is slow (Cloud TPU Multislice). Devices without
    slices, such as those of a CPU, are divided in their order.
    """
    if slices_of(devices) > 1:
        across = (slices, *(1,) * (len(shape) - 1))
        return mesh_utils.create_hybrid_device_mesh(shape, across, devices=devices)
    return np.array(devices).reshape(slices * shape[0], *shape[1:])
