"""The storages that a checkpoint's pickle refers to, and the tensors read from them."""

import dataclasses
import mmap
from typing import Any

import numpy as np

from transfer_jax.weights.readers.allowed_globals import Global, Storage, TensorRef, is_count
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.memory_map import release, view


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """A checkpoint's object, and for each storage key where its bytes begin in the file."""

    tree: Any
    offsets: dict[str, int]
    swap: bool = False


class StorageTable:
    """Turns persistent ids into `Storage`s and remembers the storage that each key stands for."""

    def __init__(self):
        self.roots: dict[str, Storage] = {}

    def __call__(self, identity: object) -> Storage:
        """Returns the storage of `("storage", type, key, location, numel[, view])`.

        Raises:
            CheckpointError: if the id has another shape or contradicts an earlier one.
        """
        match identity:
            case ("storage", Global(is_storage=True, dtype=np.dtype() as dtype), str(key), str(), size):
                view = None
            case ("storage", Global(is_storage=True, dtype=np.dtype() as dtype), str(key), str(), size, view):
                pass
            case _:
                raise CheckpointError("damaged pickle: a persistent id is not that of a storage")
        if not is_count(size):
            raise CheckpointError(f"storage {key!r} has an impossible size")
        root = self.roots.setdefault(key, Storage(key, dtype, 0, size * dtype.itemsize))
        if root.dtype != dtype or root.nbytes != size * dtype.itemsize:
            raise CheckpointError(f"storage {key!r} is described twice, differently")
        if view is None:
            return root
        match view:  # PyTorch before 0.4: part of a root storage
            case (str(), offset, length) if is_count(offset) and is_count(length) and offset + length <= size:
                return Storage(key, dtype, offset * dtype.itemsize, length * dtype.itemsize)
        raise CheckpointError(f"a view of storage {key!r} does not lie inside it")

    def check_size(self, key: str, nbytes: int) -> None:
        """Raises `CheckpointError` unless the file's `nbytes` are what the pickle says of storage `key`."""
        if self.roots[key].nbytes != nbytes:
            raise CheckpointError(
                f"storage {key!r} has {nbytes} bytes in the file and {self.roots[key].nbytes} in the pickle"
            )


def read_tensor(data: mmap.mmap, archive: Archive, tensor: TensorRef) -> np.ndarray:
    """Returns the tensor's array: a view of the file where it is contiguous and aligned, else a copy."""
    release(data)
    start = archive.offsets[tensor.key] + tensor.start if tensor.nbytes else 0
    return view(data, start, tensor.shape, tensor.dtype, strides=tensor.strides, swap=archive.swap)
