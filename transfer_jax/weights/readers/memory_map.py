"""Arrays that are views of a mapped file."""

import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transfer_jax.weights.readers.errors import CheckpointError


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, read when they are looked at.

    Raises:
        CheckpointError: if the file is empty.
    """
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise CheckpointError("the file is empty") from None


def release(data: mmap.mmap) -> None:
    """Lets go of the pages that were looked at; views stay valid, and read them again when they are used.

    Called ahead of each array, it keeps a walk through a file from holding all of it in memory.
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
    """An array that begins at `offset`: a view where it is contiguous and aligned in the file, else a copy.

    Args:
        data: the bytes.
        offset: where the first value is.
        shape: of the array.
        dtype: of its values, in this machine's byte order.
        strides: in bytes; None for a contiguous array.
        order: of a contiguous array.
        swap: whether the bytes of each value are the other way round.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    boolean = dtype == np.bool_
    kind = np.dtype(np.uint8) if boolean else dtype
    array: np.ndarray = np.ndarray(shape, kind, buffer=data, offset=offset, strides=strides, order=order)
    if boolean:
        return np.ascontiguousarray(array != 0).reshape(shape)  # other bytes than 0 and 1 are no numpy bool
    if swap:
        array = array.byteswap()
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")
