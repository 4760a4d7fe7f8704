"""A reader of PyTorch checkpoints (`.pth`, `.pt`, `.bin`) that needs no PyTorch and executes nothing."""

import functools
import mmap
from pathlib import Path

import numpy as np

from transfer_jax.weights.readers import torch_legacy, torch_zip
from transfer_jax.weights.readers.allowed_globals import TensorRef
from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.inert import Inert
from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.memory_map import map_file
from transfer_jax.weights.readers.state_dict import find_state_dict
from transfer_jax.weights.readers.torch_storages import Archive, read_tensor
from transfer_jax.weights.readers.zip_members import MAGIC

_NETWORK = ("arch", "architecture", "model", "model_name", "backbone", "encoder", "net")
_SETTINGS = ("args", "hyper_parameters", "config", "cfg", "opt")
_MAX_NAME = 1000


def is_torch(head: bytes, size: int) -> bool:
    """Returns whether a file of `size` bytes that begins with `head` is a zip file or a binary pickle."""
    del size
    pickled = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    return pickled or head.startswith(MAGIC)


def read_torch(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the names of a checkpoint's tensors and checks that each is inside the file. Maps the arrays.

    Both containers are supported, the zip file and the older one. `allowed_globals.ALLOWED` lists the globals
    that build tensors; all others become inert. `find_state_dict` describes the search for the tensors.

    Args:
        path: the file.
        entry: the dictionary to take if the checkpoint holds several, such as "model_ema".

    Raises:
        CheckpointError: if the file is damaged, truncated or compressed, or has no state dict or several.
    """
    with error_prefix(path), path.open("rb") as file:
        data = map_file(path)
        is_zip = data[:4] == MAGIC
        archive = torch_zip.read_archive(file, data) if is_zip else torch_legacy.read_archive(data)
        tensors = find_state_dict(archive.tree, entry)
        for name, tensor in tensors.items():
            # Strides of zero can repeat a byte any number of times.
            if isinstance(tensor, TensorRef) and tensor.nbytes > len(data):
                raise CheckpointError(
                    f"damaged: tensor {name[:200]!r} takes {tensor.nbytes} bytes, more than the file"
                )
    weights = LazyWeights(
        path,
        {
            name: functools.partial(_read, path, name, data, archive, tensor)
            for name, tensor in tensors.items()
        },
        {name: _info(tensor) for name, tensor in tensors.items()},
    )
    weights.metadata = _network_names(archive.tree)
    return weights


def _network_names(tree: object) -> dict[str, str]:
    """Returns the names of networks that a training script saved beside the state dict, by their keys."""
    found: dict[str, str] = {}
    top = tree if isinstance(tree, dict) else {}
    for where in ("", *_SETTINGS):
        node = top.get(where) if where else top
        values = {**node, **node.state} if isinstance(node, Inert) else node
        if not isinstance(values, dict):
            continue
        for key in _NETWORK:
            if isinstance(text := values.get(key), str):
                found[f"{where}.{key}".lstrip(".")] = text[:_MAX_NAME]
    return found


def _info(tensor: TensorRef | Inert) -> ArrayInfo:
    if isinstance(tensor, Inert):
        return ArrayInfo((), f"unsupported ({tensor.name})")
    return ArrayInfo(tensor.shape, str(tensor.dtype))


def _read(path: Path, name: str, data: mmap.mmap, archive: Archive, tensor: TensorRef | Inert) -> np.ndarray:
    if isinstance(tensor, Inert):
        raise CheckpointError(
            f"{path}: tensor {name[:200]!r} is built by {tensor.name}, which is not supported (quantized, "
            "sparse or of a class of its own); save an ordinary float tensor in PyTorch"
        )
    with error_prefix(path):
        return read_tensor(data, archive, tensor)
