"""Datasets that tensorflow-datasets has prepared as array_record files. They are read without TensorFlow."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_files import abridged
from transfer_jax.data.targets import make_targets
from transfer_jax.data.tfds_features import Chosen, choose_image, choose_label, feature_tasks
from transfer_jax.data.tfds_records import open_records
from transfer_jax.tasks import Task, make_task
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
) -> ImageDataset:
    """Reads a dataset that tensorflow-datasets has prepared with `file_format="array_record"`.

    All labels are read at once (tens of thousands a second), the images one at a time. No other features are
    decoded.

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

    Returns:
        The dataset in the order of the records. Names consist of dataset, split and position. Examples
        without a label are left out; the notes count them.

    Raises:
        ValueError: If the dataset is not prepared in the folder, is not array_record, has no such split, has
            no images or labels, has several that are equally likely, or has no labels in the split.
    """
    records = open_records(_prepared_folder(name, Path(data_dir or default_data_dir()).expanduser()), split)
    images, labels = choose_image(records.info, image), choose_label(records.info, label, task)
    values = records.columns(labels.name)[labels.name]
    positions, found = _targets(values, labels, feature_tasks(labels.feature)[0] if task == "auto" else task)
    kept = np.flatnonzero(positions >= 0) if positions.ndim == 1 else np.arange(len(positions))
    unlabelled = len(positions) - len(kept)
    if not len(kept):
        raise ValueError(
            f"split {split!r} of {name} has {unlabelled} examples without a label; "
            f"choose another split among {', '.join(sorted(records.info.splits))}"
        )
    notes = [_note("image", images)] if images.others and image is None else []
    notes += [_note("label", labels)] if labels.others and label is None else []
    if unlabelled:
        notes.append(f"{unlabelled:,} of {len(positions):,} examples without a label are left out")
    read = records.reader(images.name)
    fingerprint = records.fingerprint
    if image or label or images.others or labels.others:
        fingerprint = hashlib.sha256(f"{fingerprint} {images.name} {labels.name}".encode()).hexdigest()
    dataset = ImageDataset(
        read=read,
        labels=np.maximum(positions, 0) if unlabelled else positions,
        names=[f"{name} {split} {i}" for i in range(len(positions))],
        class_names=found.names,
        task=found,
        fingerprint=fingerprint,
        notes=tuple(notes),
    )
    return dataset.subset(kept) if unlabelled else dataset


def _targets(values: list, labels: Chosen, task: str) -> tuple[np.ndarray, Task]:
    """Returns the labels of all examples, and the task; a class of -1 is missing."""
    feature = getattr(labels.feature, "feature", labels.feature)
    names = getattr(feature, "names", None)
    if task in ("single_label", "ordinal") and names is not None:
        return np.asarray(values, dtype=np.int32), make_task(task, names)
    if task == "regression":
        width = int(np.prod(labels.feature.shape))
        last = labels.name.rsplit("/", 1)[-1]
        names = [last] if width == 1 else [f"{last} {place}" for place in range(width)]
    return make_targets(np.stack(values) if _is_table(values) else values, task, names)


def _is_table(values: list) -> bool:
    """Returns True for arrays `(k,)` of one length, for more than one example."""
    shapes = {getattr(each, "shape", ()) for each in values}
    return len(shapes) == 1 and len(shapes.pop()) == 1


def _note(kind: str, chosen: Chosen) -> str:
    others = abridged(chosen.others)
    return f"the {kind} of an example is its feature {chosen.name!r}, not {others} (choose with ?{kind}=NAME)"


def _prepared_folder(name: str, data_dir: Path) -> Path:
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
