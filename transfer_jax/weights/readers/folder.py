"""The weight file of a folder, such as one of the Hugging Face hub."""

import re
from collections.abc import Iterator
from pathlib import Path

from transfer_jax.weights.readers.entries import listed
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.foreign_files import describe_foreign
from transfer_jax.weights.readers.orbax import find_orbax

ORDER = (
    "model.safetensors",
    "weights.safetensors",
    "model/weights.safetensors",
    "model.safetensors.index.json",
    "*.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "*.safetensors",
    "*.bin.index.json",
    "*.npz",
    "*.keras",
    "*.weights.h5",
    "*.h5",
    "*.hdf5",
    "*.pth",
    "*.pt",
    "*.ckpt",
    "*.bin",
)
"""Names of weight files. The first one in a folder is read. An Orbax checkpoint comes before `.bin` files."""
_AFTER_ORBAX = ORDER.index("pytorch_model.bin")
_OTHERS = ("optimizer", "scheduler", "scaler", "training_args", "rng_state", "random_states", ".")
"""Beginnings of names of files that training scripts write beside the weights."""
_SHARD = re.compile(r"-\d{3,}-of-\d{3,}\.")


def find_weights(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """Returns the weight file of a folder, or its Orbax checkpoint, and the other weight files there.

    Raises:
        FileNotFoundError: if there is none; the message lists what is there.
        CheckpointError: if there are several of the same kind, of which none is the usual one.
    """
    groups = [*_groups(folder)]
    if not groups:
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError as error:
            names = [str(error)]
        texts = ((name, describe_foreign(name, b"")) for name in names[:1000])
        foreign = "".join(f" {name} is {text}." for name, text in texts if text is not None)
        held = f"the folder contains {listed(names) or 'nothing'}.{foreign}"
        if any(_SHARD.search(name) for name in names):
            held += " Shards are read by their index, such as model.safetensors.index.json, which is missing."
        if (folder / ".metadata").is_file() and any(name.endswith(".distcp") for name in names):
            raise CheckpointError(
                f"{folder}: the folder is a distributed checkpoint of PyTorch, which is not supported; "
                "convert it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
                f"{folder} weights.pth"
            )
        raise FileNotFoundError(
            f"no weight file at {folder}: {held} Names of weight files are {', '.join(ORDER)}; otherwise, "
            "give the path of the file"
        )
    first, rest = groups[0], groups[1:]
    if len(first) > 1:
        names = listed(path.name for path in first)
        raise CheckpointError(f"{folder}: the folder has several weight files: {names}; give the path of one")
    return first[0], tuple(path for group in rest for path in group)


def _groups(folder: Path) -> Iterator[list[Path]]:
    seen: set[Path] = set()
    for position, pattern in enumerate(ORDER):
        if position == _AFTER_ORBAX and (found := find_orbax(folder)) is not None:
            yield [found]
        paths = [path for path in sorted(folder.glob(pattern)) if path.is_file() and path not in seen]
        paths = [path for path in paths if not path.name.lower().startswith(_OTHERS)]
        paths = [path for path in paths if not _SHARD.search(path.name)]
        seen.update(paths)
        if paths:
            yield paths
