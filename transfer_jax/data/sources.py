"""From a short string, as a configuration holds it, to a dataset."""

import difflib
import os
import re
from pathlib import Path

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.elpv import TARGETS, from_elpv
from transfer_jax.data.image_folder import from_csv, from_folder
from transfer_jax.data.tfds import from_tfds
from transfer_jax.storage.remote import is_remote, local_of, pull

KINDS = ("elpv", "folder", "csv", "tfds")
_FORMS = "elpv[:any|:likely|:sure], folder:PATH, csv:PATH, tfds:NAME[:SPLIT], or the path of a folder"


def load_dataset(source: str, data_dir: str | os.PathLike[str] | None = None) -> ImageDataset:
    """Opens the dataset that a string names.

    - `elpv`, `elpv:likely`, `elpv:sure`, `elpv:confidence`: the ELPV solar cells, see `from_elpv`
    - `folder:PATH`, or an existing folder's path: one sub-folder a class, see `from_folder`
    - `gs://PATH`, `s3://PATH`: the same in object storage, copied to this machine first
    - `csv:PATH`: a table of paths and labels, see `from_csv`
    - `tfds:NAME[:VERSION][:SPLIT]`: prepared by tensorflow-datasets, see `from_tfds`; `train` by default

    Args:
        source: One of the forms above.
        data_dir: Where prepared datasets are; by default `default_data_dir()`.

    Raises:
        ValueError: If the string has none of these forms, or as the function it leads to says.
    """
    kind, _, rest = source.partition(":")
    if kind == "elpv":
        return from_elpv(rest or TARGETS[0], data_dir)
    if kind == "folder" and rest:
        return from_folder(_here(rest))
    if kind == "csv" and rest:
        table = _here(str(Path(rest).parent) if is_remote(rest) else rest)
        return from_csv(table / Path(rest).name if is_remote(rest) else table)
    if kind == "tfds" and rest:
        name, split = _name_and_split(rest)
        return from_tfds(name, split, data_dir)
    if is_remote(source) or (source and Path(source).expanduser().is_dir()):
        return from_folder(_here(source))
    nearest = difflib.get_close_matches(kind, KINDS, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown dataset {source!r}: expected {_FORMS}.{hint}")


def _here(place: str) -> Path:
    """A local path, or a copy of all that is at an address: images are read many times."""
    if not is_remote(place):
        return Path(place).expanduser()
    path = local_of(place, shared=True)
    pull(path)
    return path


def _name_and_split(text: str) -> tuple[str, str]:
    """Divides `NAME[:VERSION][:SPLIT]`; splits such as `train[1:5]` may hold a colon of their own."""
    match = re.fullmatch(r"([^:]+(?::\d+\.\d+\.\d+)?)(?::(.+))?", text)
    if match is None:
        raise ValueError(f"expected tfds:NAME[:VERSION][:SPLIT], got 'tfds:{text}'")
    return match[1], match[2] or "train"
