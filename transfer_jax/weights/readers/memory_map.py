"""Memory-mapped files, and arrays that are views of them."""

import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transfer_jax.weights.readers.errors import CheckpointError


def map_file(path: Path) -> mmap.mmap:
    """Returns a read-only memory map of a file.

    Raises:
        CheckpointError: if the file is empty.
    """
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CheckpointError("the file is empty; download or save it again") from None


def release(data: mmap.mmap) -> None:
    """Releases the pages of the map that are in memory. Views stay valid and read them again when used.

    Called before each array is read, it keeps memory use below the size of the file.
    """
    if hasattr(data, "madvise"):
        data.madvise(mmap.MADV_DONTNEED)


def view(
    data: mmap.mmap | bytes,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    strides: tuple[int, ...] | None = None,
    order: Literal["C", "F"] = "C",
    swap: bool = False,
) -> np.ndarray:
    """Returns the array that begins at byte `offset`: a view if it is contiguous and aligned, else a copy.

    Args:
        data: the bytes.
        offset: the position of the first value, in bytes.
        shape: the shape of the array.
        dtype: the dtype of the values, in native byte order.
        strides: the strides in bytes; None for a contiguous array.
        order: the memory order of a contiguous array.
        swap: whether to reverse the bytes of each value, because the file has the other byte order.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    boolean = dtype == np.bool_
    kind = np.dtype(np.uint8) if boolean else dtype
    array: np.ndarray = np.ndarray(shape, kind, buffer=data, offset=offset, strides=strides, order=order)
    if boolean:
        return np.ascontiguousarray(array != 0).reshape(shape)  # NumPy's bools are 0 or 1 only
    if swap:
        array = array.byteswap()
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")
