"""Datasets that tensorflow-datasets has prepared as array_record files. They are read without TensorFlow."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.data.dataset import ImageDataset

DATA_DIR_VARIABLE = "TRANSFER_JAX_DATA"
"""Environment variable of the folder of prepared datasets."""
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def default_data_dir() -> Path:
    """Returns the folder of prepared datasets: `$TRANSFER_JAX_DATA`, or `~/.cache/transfer_jax/data`."""
    return Path(os.environ.get(DATA_DIR_VARIABLE) or "~/.cache/transfer_jax/data").expanduser()


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """One split of a prepared dataset.

    Attributes:
        info: The `tfds.core.DatasetInfo`.
        image_key: Name of the feature that contains the image.
        source: Examples as dictionaries, with random access; images are encoded.
        fingerprint: SHA-256 of name, version, split, number of examples, and the files' sizes and times.
    """

    info: Any
    image_key: str
    source: Sequence[dict[str, Any]]
    fingerprint: str

    def read(self, index: int) -> bytes:
        """Returns the encoded image of one example."""
        return self.source[index][self.image_key]

    def columns(self) -> dict[str, list]:
        """Returns the values of all features except the image for all examples, by name."""
        columns = {key: [] for key in self.info.features if key != self.image_key}
        for example in self.source:
            for key, values in columns.items():
                values.append(example[key])
        return columns


def open_records(folder: Path, split: str) -> Records:
    """Opens one split of a prepared dataset.

    Args:
        folder: The folder of a version: `.../NAME/[CONFIG/]VERSION`.
        split: A split in the notation of tensorflow-datasets: `train`, `test`, `train[:75%]`.

    Raises:
        ValueError: If the files are not array_record, the split does not exist, or the number of image
            features is not one.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)  # The type annotations are incomplete.
    info = builder.info
    file_format = info.file_format.value if info.file_format else "an unknown format"
    if file_format != "array_record":
        raise ValueError(
            f"{info.full_name} in {str(folder)!r} is prepared as {file_format}, "
            "which needs TensorFlow; prepare it again with file_format='array_record'"
        )
    images = [key for key, feature in info.features.items() if isinstance(feature, tfds.features.Image)]
    if len(images) != 1:
        raise ValueError(
            f"{info.full_name} must have one image feature, got {images} among {list(info.features)}"
        )
    try:
        chosen = info.splits[split]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{info.full_name} has no split {split!r}; its splits are {sorted(info.splits)}, "
            "and a part of a split is written as 'train[:75%]'"
        ) from error
    digest = hashlib.sha256(repr((info.full_name, split, chosen.num_examples)).encode())
    for file in sorted({os.fspath(path) for path in chosen.filepaths}):
        status = os.stat(file)
        digest.update(repr((os.path.basename(file), status.st_size, status.st_mtime_ns)).encode())
    source = builder.as_data_source(split, decoders={images[0]: tfds.decode.SkipDecoding()})
    return Records(info=info, image_key=images[0], source=source, fingerprint=digest.hexdigest())


def from_tfds(
    name: str, split: str = "train", data_dir: str | os.PathLike[str] | None = None
) -> ImageDataset:
    """Reads a dataset that tensorflow-datasets has prepared with `file_format="array_record"`.

    All labels are read at once (tens of thousands a second), the images one at a time.

    Args:
        name: `NAME` or `NAME/CONFIG`, optionally with `:VERSION`; without a version, the newest prepared one
            is used.
        split: A split in the notation of tensorflow-datasets: `train`, `test`, `train[:75%]`.
        data_dir: The folder of the prepared dataset; None for `default_data_dir()`.

    Returns:
        The dataset in the order of the records. Names consist of dataset, split and position.

    Raises:
        ValueError: If the dataset is not prepared in the folder, is not array_record, has no such split, has
            not exactly one image and one class label, or has examples without a label.
    """
    import tensorflow_datasets as tfds

    records = open_records(_prepared_folder(name, Path(data_dir or default_data_dir())), split)
    features = records.info.features
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if "label" in labels:
        labels = ["label"]
    if len(labels) != 1:
        raise ValueError(f"{name} must have one class label, got {labels} among {list(features)}")
    values = np.asarray(records.columns()[labels[0]], dtype=np.int32)
    if len(values) and values.min() < 0:
        raise ValueError(f"split {split!r} of {name} has {(values < 0).sum()} examples without a label")
    return ImageDataset(
        read=records.read,
        labels=values,
        names=[f"{name} {split} {i}" for i in range(len(values))],
        class_names=tuple(features[labels[0]].names),
        fingerprint=records.fingerprint,
    )


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
            f"(prepared there: {', '.join(available) or 'nothing'}). "
            f"Prepare it once with tfds.builder({name!r}, data_dir=..., file_format='array_record')"
            ".download_and_prepare(), or set data_dir to its folder"
        )
    if len(configs := sorted(set(matches.values()))) > 1:
        raise ValueError(f"{name!r} is prepared in several configs; choose one of {', '.join(configs)}")
    return max(matches, key=lambda folder: tuple(map(int, folder.name.split("."))))
