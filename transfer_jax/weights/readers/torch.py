"""A reader of PyTorch checkpoints (`.pth`, `.pt`, `.bin`) that needs no PyTorch and executes nothing."""

import functools
from pathlib import Path

from transfer_jax.weights.readers import torch_legacy, torch_zip
from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.memory_map import map_file
from transfer_jax.weights.readers.state_dict import find_state_dict
from transfer_jax.weights.readers.torch_storages import read_tensor
from transfer_jax.weights.readers.zip_members import MAGIC


def is_torch(head: bytes, size: int) -> bool:
    """Returns whether a file of `size` bytes that begins with `head` is a zip file or a binary pickle."""
    del size
    pickled = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    return pickled or head.startswith(MAGIC)


def read_torch(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the names of a checkpoint's tensors and checks that each is inside the file. Maps the arrays.

    Both containers are supported, the zip file and the older one. `allowed_globals.ALLOWED` lists the globals
    that a checkpoint may name; `find_state_dict` describes the search for the tensors.

    Args:
        path: the file.
        entry: the dictionary to take if the checkpoint holds several, such as "model_ema".

    Raises:
        UnsafeCheckpointError: if the file names anything that tensors do not need.
        CheckpointError: if the file is damaged, truncated or compressed, or has no state dict or several.
    """
    with error_prefix(path), path.open("rb") as file:
        data = map_file(path)
        is_zip = data[:4] == MAGIC
        archive = torch_zip.read_archive(file, data) if is_zip else torch_legacy.read_archive(data)
        tensors = find_state_dict(archive.tree, entry)
        for name, tensor in tensors.items():
            if tensor.nbytes > len(data):  # strides of zero can repeat a byte any number of times
                raise CheckpointError(
                    f"damaged: tensor {name[:200]!r} takes {tensor.nbytes} bytes, more than the file"
                )
    return LazyWeights(
        path,
        {name: functools.partial(read_tensor, data, archive, tensor) for name, tensor in tensors.items()},
        {name: ArrayInfo(tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()},
    )
