"""Datasets that tensorflow-datasets has prepared as array_record files. They are read without TensorFlow."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.contents import NumberedNames
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_files import abridged
from transfer_jax.data.index import IndexProgress
from transfer_jax.data.tfds_features import Chosen, choose_image, choose_label
from transfer_jax.data.tfds_labels import read_labels
from transfer_jax.data.tfds_records import open_records
from transfer_jax.user_cache import user_cache

DATA_DIR_VARIABLE = "TRANSFER_JAX_DATA"
"""Environment variable of the folder of prepared datasets."""
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def default_data_dir() -> Path:
    """Returns the folder of prepared datasets: `$TRANSFER_JAX_DATA`, or `~/.cache/transfer_jax/data`."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    return Path(folder).expanduser() if folder else user_cache("data")


def from_tfds(
    name: str,
    split: Any = "train",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image: str | None = None,
    label: str | None = None,
    task: str = "auto",
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads a dataset that tensorflow-datasets has prepared with `file_format="array_record"`.

    Images are read when they are needed, the labels at once: about 100,000 a second and core. Those of 20,000
    examples or more are kept in an index beside the files, so that a later start reads no records. No other
    features are decoded.

    Args:
        name: `NAME` or `NAME/CONFIG`, optionally with `:VERSION`; without a version, the newest prepared one
            is used.
        split: A split in the notation of tensorflow-datasets: `train`, `train+test`, `train[:75%]`,
            `train[100:200]`; or one of `tfds.even_splits`.
        data_dir: The folder of the prepared dataset; None for `default_data_dir()`.
        image: Name of the feature with the images, `OUTER/INNER` in a dictionary; None takes that of
            `supervised_keys`, or `image`, or the only one that is no mask.
        label: Name of the feature with the labels; None takes that of `supervised_keys`, or `label`, or the
            only class label.
        task: `single_label`, `multi_label` (a sequence of class labels, or an array of 0 and 1), `regression`
            (a number, or an array of numbers) or `ordinal`; `auto` takes that of the feature.
        progress: Receives the progress of indexing; None shows none.

    Returns:
        The dataset in the order of the records. Names consist of dataset, split and position. Examples
        without a label are left out; the notes count them.

    Raises:
        ValueError: If the dataset is not prepared in the folder, is not array_record, has no such split, has
            no images or labels, has several that are equally likely, has no labels in the split, or has
            labels that are no classes; or if a file is truncated or damaged.
    """
    folder = prepared_folder(name, Path(data_dir or default_data_dir()).expanduser())
    records = open_records(folder, split)
    images, labels = choose_image(records.info, image), choose_label(records.info, label, task)
    positions, found = read_labels(records, labels, task, folder, f"{name} {split}", progress)
    unlabelled = int(np.count_nonzero(positions < 0)) if found.kind in ("single_label", "ordinal") else 0
    if unlabelled == len(positions):
        raise ValueError(
            f"split {split!r} of {name} has {unlabelled} examples without a label; "
            f"choose another split among {', '.join(sorted(records.info.splits))}"
        )
    notes = [_note("image", images)] if images.others and image is None else []
    notes += [_note("label", labels)] if labels.others and label is None else []
    if unlabelled:
        left = counted(unlabelled, "example without a label is", "examples without a label are")
        notes.append(f"{left} left out, of {len(positions):,}")
    read = records.reader(images.name)
    fingerprint = records.fingerprint
    if image or label or images.others or labels.others:
        fingerprint = hashlib.sha256(f"{fingerprint} {images.name} {labels.name}".encode()).hexdigest()
    dataset = ImageDataset(
        read=read,
        read_many=read.many,
        labels=np.maximum(positions, 0) if unlabelled else positions,
        names=NumberedNames(f"{name} {split} ", len(positions)),
        class_names=found.names,
        task=found,
        fingerprint=fingerprint,
        notes=tuple(notes),
    )
    return dataset.subset(np.flatnonzero(positions >= 0)) if unlabelled else dataset


def _note(kind: str, chosen: Chosen) -> str:
    others = abridged(chosen.others)
    return f"the {kind} of an example is its feature {chosen.name!r}, not {others} (choose with ?{kind}=NAME)"


def prepared_folder(name: str, data_dir: Path) -> Path:
    """Returns the folder of the newest version of a prepared dataset, or of the version in the name."""
    prepared = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for file in sorted(data_dir.glob(pattern)):
            full = file.parent.parent.relative_to(data_dir).as_posix()
            if _VERSION.fullmatch(file.parent.name) and not full.startswith("."):
                prepared[file.parent] = full
    wanted, _, version = name.partition(":")
    matches = {
        folder: full for folder, full in prepared.items() if full == wanted or full.startswith(wanted + "/")
    }
    matches = {folder: full for folder, full in matches.items() if version in ("", folder.name)}
    if not matches:
        available = sorted(f"{full}:{folder.name}" for folder, full in prepared.items())
        raise ValueError(
            f"{name!r} is not prepared in {str(data_dir)!r} "
            f"(prepared there: {', '.join(available[:20]) or 'nothing'}{', ...' * (len(available) > 20)}). "
            f"{_remedy(name, data_dir)}"
        )
    if len(configs := sorted(set(matches.values()))) > 1:
        raise ValueError(f"{name!r} is prepared in several configs; choose one of {', '.join(configs)}")
    return max(matches, key=lambda folder: tuple(map(int, folder.name.split("."))))


def _remedy(name: str, data_dir: Path) -> str:
    """Returns how to get a dataset that is not prepared in a folder."""
    wanted, _, version = name.partition(":")
    other = Path(os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets"))
    if any((other / wanted).glob(f"**/{version or '*'}/dataset_info.json")):
        return f"It is prepared in {str(other)!r}; set data_dir to this folder"
    return (
        f"Prepare it once with tfds.builder({name!r}, data_dir={str(data_dir)!r}, file_format='array_record')"
        ".download_and_prepare(), or set data_dir to its folder"
    )
