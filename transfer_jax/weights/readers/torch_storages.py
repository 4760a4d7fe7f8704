"""The storages that a PyTorch checkpoint refers to, and the tensors read from them."""

import dataclasses
import mmap
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from transfer_jax.weights.readers.allowed_globals import Global, Storage, TensorRef, is_count
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.memory_map import release, view
from transfer_jax.weights.readers.zip_members import check


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """The object of a checkpoint and the positions of its storages.

    Attributes:
        tree: The object.
        offsets: The position of each storage in the file, in bytes, by its key.
        swap: Whether the storages have the byte order that this machine does not have.
        members: The member of the zip file of each storage, by its key; empty in the older container, which
            has no checksums.
        checked: The keys of the storages that match their checksums.
    """

    tree: Any
    offsets: dict[str, int]
    swap: bool = False
    members: Mapping[str, zipfile.ZipInfo] = dataclasses.field(default_factory=dict)
    checked: set[str] = dataclasses.field(default_factory=set)


class StorageTable:
    """A table of the storages in a pickle, which turns persistent ids into `Storage` objects."""

    def __init__(self):
        self.roots: dict[str, Storage] = {}

    def __call__(self, identity: object) -> Storage | Global:
        """Returns the storage of `("storage", type, key, location, numel[, view])`.

        Older files describe a class as `("module", class, file, source)`; the result is the class.

        Raises:
            CheckpointError: if the id has another form or contradicts an earlier one.
        """
        match identity:
            case ("storage", Global(is_storage=True, dtype=np.dtype() as dtype), str(key), str(), size):
                view = None
            case ("storage", Global(is_storage=True, dtype=np.dtype() as dtype), str(key), str(), size, view):
                pass
            case ("module", Global() as cls, _, _):
                return cls
            case _:
                raise CheckpointError("damaged pickle: a persistent id does not describe a storage")
        if not is_count(size):
            raise CheckpointError(f"damaged pickle: storage {key!r} has an invalid size")
        root = self.roots.setdefault(key, Storage(key, dtype, 0, size * dtype.itemsize))
        if root.dtype != dtype or root.nbytes != size * dtype.itemsize:
            raise CheckpointError(f"damaged pickle: storage {key!r} has two contradictory descriptions")
        if view is None:
            return root
        match view:  # a part of a root storage, as in PyTorch before 0.4
            case (str(), offset, length) if is_count(offset) and is_count(length) and offset + length <= size:
                return Storage(key, dtype, offset * dtype.itemsize, length * dtype.itemsize)
        raise CheckpointError(f"damaged pickle: a view of storage {key!r} exceeds it")

    def check_size(self, key: str, nbytes: int) -> None:
        """Raises `CheckpointError` unless storage `key` has `nbytes` bytes according to the pickle."""
        if self.roots[key].nbytes != nbytes:
            raise CheckpointError(
                f"damaged: storage {key!r} has {nbytes} bytes in the file "
                f"and {self.roots[key].nbytes} in the pickle"
            )


def read_tensor(data: mmap.mmap, archive: Archive, tensor: TensorRef) -> np.ndarray:
    """Returns the tensor's array: a view of the file if it is contiguous and aligned, else a copy.

    Raises:
        CheckpointError: if the storage does not match its checksum.
    """
    release(data)
    if tensor.key in archive.members and tensor.key not in archive.checked:
        check(data, archive.members[tensor.key])
        archive.checked.add(tensor.key)
    start = archive.offsets[tensor.key] + tensor.start if tensor.nbytes else 0
    return view(data, start, tensor.shape, tensor.dtype, strides=tensor.strides, swap=archive.swap)
