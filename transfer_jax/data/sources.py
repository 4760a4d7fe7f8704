"""Datasets by a short string, as in a config."""

import dataclasses
import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.elpv import TARGETS, from_elpv
from transfer_jax.data.image_folder import from_folder
from transfer_jax.data.image_table import from_csv
from transfer_jax.data.index import IndexProgress
from transfer_jax.data.remote.bucket_folder import from_bucket_folder
from transfer_jax.data.remote.bucket_table import from_bucket_table
from transfer_jax.data.remote.bucket_tfds import from_bucket_tfds
from transfer_jax.data.remote.packed_records import from_records, packing_notes
from transfer_jax.data.remote.parquet_shards import from_parquet_shards
from transfer_jax.data.remote.tar_shards import from_tar_shards
from transfer_jax.data.tfds import from_tfds
from transfer_jax.storage.absolute_path import absolute_path
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.remote import is_remote

KINDS = ("elpv", "folder", "csv", "tfds", "records", "wds", "parquet")
"""The kinds of sources, the first part of the string."""
_FORMS = (
    "elpv[:any|:likely|:sure], folder:PATH, csv:PATH[?image=COLUMN&label=COLUMN], "
    "tfds:NAME[:SPLIT][?image=KEY&label=KEY], records:PATH, wds:PATH, parquet:PATH, or the path of a folder"
)
_COLUMNS = ("image", "label", "group", "split", "classes")
"""The columns of a table that a string can name."""
_SHARDS = {"wds": from_tar_shards, "parquet": from_parquet_shards}


def load_dataset(
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    least_classes: int = 2,
    task: str = "auto",
    progress: IndexProgress | None = None,
    object_gigabytes: float | None = None,
) -> ImageDataset:
    """Opens the dataset that a string names.

    - `elpv`, `elpv:likely`, `elpv:sure`, `elpv:confidence`: the ELPV solar cells, see `from_elpv`
    - `folder:PATH`, or the path of a folder: one subfolder for each class, see `from_folder`
    - `gs://PATH`, `s3://PATH`: the same in object storage, see `from_bucket_folder`
    - `csv:PATH[?image=COLUMN&label=COLUMN&group=COLUMN&split=COLUMN&classes=A,B,C]`: a table of paths and
      labels, see `from_csv`
    - `tfds:NAME[:VERSION][:SPLIT][?image=KEY&label=KEY]`: a dataset that tensorflow-datasets has prepared,
      see `from_tfds`; the default split is `train`
    - `records:PATH`: the result of `transfer-jax pack`, see `from_records`
    - `wds:PATH[?label=KEY&image=ENDING&classes=A,B,C]`: tar shards of WebDataset, see `from_tar_shards`
    - `parquet:PATH[?label=COLUMN&image=COLUMN]`: Parquet files of Hugging Face, see `from_parquet_shards`

    All paths may be addresses in object storage, whose images are read when they are needed.

    Example:
        >>> dataset = load_dataset("folder:photos")

    Args:
        source: One of the forms above, or a `Path`.
        data_dir: Folder of prepared datasets; None for `default_data_dir()`.
        least_classes: The smallest number of classes of a folder or table: 2 to train on them, 1 to evaluate
            a model.
        task: The task; `auto` takes that of the source.
        progress: Receives the progress of work that is done once for a large source, such as its index; None
            shows none.
        object_gigabytes: The limit of the cache of images from object storage in units of 10^9 bytes; None
            takes `TRANSFER_JAX_OBJECT_GIGABYTES`, or 20.

    Raises:
        ValueError: If the string has none of these forms, or the source cannot have the task. The function of
            the source raises other errors.
    """
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"images must be one string such as folder:PATH, got {source!r}")
    source = os.fspath(source)
    kind, _, rest = source.partition(":")
    cache = None if object_gigabytes is None else ObjectCache(gigabytes=object_gigabytes)
    read: dict[str, Any] = {"task": task, "cache": cache, "progress": progress}
    folder = {**read, "least_classes": least_classes}
    if kind == "elpv":
        return _of_task(from_elpv(rest or TARGETS[0], data_dir), task, source)
    if kind == "folder" and rest:
        return _folder(rest, **folder)
    if kind == "csv" and rest:
        rest, _, choices = rest.partition("?")
        keys = _keys("csv:FILE", choices, _COLUMNS)
        classes = keys.pop("classes").split(",") if "classes" in keys else None
        columns = {f"{each}_column": name for each, name in keys.items()}
        options = {**columns, "least_classes": least_classes, "task": task, "classes": classes}
        if is_remote(rest):
            return from_bucket_table(rest, cache=cache, progress=progress, **options)
        return from_csv(os.path.expanduser(rest), progress=progress, **options)
    if kind == "tfds" and rest:
        rest, _, choices = rest.partition("?")
        name, split = _name_and_split(rest)
        keys = _keys("tfds:NAME", choices, ("image", "label"))
        if data_dir is not None and is_remote(data_dir):
            return from_bucket_tfds(name, split, os.fspath(data_dir), **keys, **read)
        return from_tfds(name, split, data_dir, task=task, progress=progress, **keys)
    if kind in _SHARDS and rest:
        rest, _, choices = rest.partition("?")
        keys: dict[str, Any] = _keys(f"{kind}:PATH", choices, ("image", "label", "classes"))
        if "classes" in keys:
            keys["classes"] = keys["classes"].split(",")
        return _SHARDS[kind](rest, **keys, **read)
    if kind == "records" and rest:
        return from_records(rest, **read)
    nearest = difflib.get_close_matches(kind, {*KINDS} - {kind}, n=1)
    if is_remote(source) or (_is_path(source) and not (rest and nearest)):
        return _folder(source, **folder)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown dataset {source!r}: expected {_FORMS}.{hint}")


def _of_task(dataset: ImageDataset, task: str, source: str) -> ImageDataset:
    """Returns a dataset whose source decides its task.

    Raises:
        ValueError: If another task is wanted.
    """
    if task not in ("auto", dataset.task.kind):
        raise ValueError(f"{source!r} has targets of the task {dataset.task.kind}, not {task}")
    return dataset


def absolute_source(source: str) -> str:
    """Returns a source with its path written out, so that it means the same from any folder.

    Names of datasets and addresses in object storage are not changed.
    """
    kind, _, rest = source.partition(":")
    if kind in ("folder", "csv", *_SHARDS, "records") and rest:
        return f"{kind}:{absolute_path(rest)}"
    is_path = kind not in KINDS and bool(source) and os.path.exists(os.path.expanduser(source))
    return absolute_path(source) if is_path else source


def _folder(place: str, *, least_classes: int, task: str, **remote: Any) -> ImageDataset:
    """Returns the images of a folder on a disk or in object storage."""
    if is_remote(place):
        return from_bucket_folder(place, least_classes=least_classes, task=task, **remote)
    local, progress = os.path.expanduser(place), remote["progress"]
    dataset = from_folder(local, least_classes=least_classes, task=task, progress=progress)
    offered = packing_notes(local, len(dataset))
    return dataclasses.replace(dataset, notes=(*dataset.notes, *offered)) if offered else dataset


def _is_path(source: str) -> bool:
    """Returns True for a path that exists, and for a text that can only be a path."""
    written = source.startswith(("~", ".")) or "/" in source or "\\" in source
    return bool(source) and (written or os.path.exists(os.path.expanduser(source)))


def _name_and_split(text: str) -> tuple[str, str]:
    """Splits `NAME[:VERSION][:SPLIT]`; a split such as `train[1:5]` may contain a colon."""
    match = re.fullmatch(r"([^:]+(?::\d+\.\d+\.\d+)?)(?::(.+))?", text)
    if match is None:
        raise ValueError(f"expected tfds:NAME[:VERSION][:SPLIT], got 'tfds:{text}'")
    return match[1], match[2] or "train"


def _keys(source: str, text: str, kinds: Sequence[str]) -> dict[str, str]:
    """Returns the features or columns that a text such as `image=KEY&label=KEY` chooses."""
    pairs = [part.partition("=") for part in text.split("&")] if text else []
    if not all(kind in kinds and key for kind, _, key in pairs):
        form = "&".join(f"{kind}=KEY" for kind in kinds)
        raise ValueError(f"expected {source}?{form}, got '{source.partition(':')[0]}:...?{text}'")
    return {kind: key for kind, _, key in pairs}
