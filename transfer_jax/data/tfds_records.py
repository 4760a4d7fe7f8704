"""The examples of a dataset that tensorflow-datasets has prepared, read without TensorFlow."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.data.image_files import abridged


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """One split of a prepared dataset.

    Attributes:
        info: The `tfds.core.DatasetInfo`.
        examples: The serialized examples, with random access.
        fingerprint: SHA-256 of name, version, split, number of examples, and the files' sizes and times.
    """

    info: Any
    examples: Sequence[bytes]
    fingerprint: str

    def columns(self, *names: str) -> dict[str, list]:
        """Returns the values of some features for all examples; other features are not decoded.

        Args:
            *names: Names of features, `OUTER/INNER` for those in dictionaries.
        """
        paths = {name: _path(self.info.features, name) for name in names}
        features = {name: self._subset(path) for name, path in paths.items()}
        columns: dict[str, list] = {name: [] for name in names}
        for example in self.examples:
            for name, path in paths.items():
                columns[name].append(_inner(features[name].deserialize_example_np(example), path))
        return columns

    def reader(self, name: str) -> Callable[[int], Any]:
        """Returns the function from the position of an example to its encoded image, or to its array."""
        import tensorflow_datasets as tfds

        path = _path(self.info.features, name)
        features = self._subset(path)
        encoded = isinstance(_inner(self.info.features, path), tfds.features.Image)
        decoders = _outer(path, tfds.decode.SkipDecoding()) if encoded else None

        def read(index: int) -> Any:
            return _inner(features.deserialize_example_np(self.examples[index], decoders=decoders), path)

        return read

    def _subset(self, path: tuple[str, ...]) -> Any:
        """Returns the features of an example with one feature only."""
        import tensorflow_datasets as tfds

        return tfds.features.FeaturesDict(_outer(path, _inner(self.info.features, path)))


def open_records(folder: Path, split: Any = "train") -> Records:
    """Opens one split of a prepared dataset.

    Args:
        folder: The folder of a version: `.../NAME/[CONFIG/]VERSION`.
        split: A split in the notation of tensorflow-datasets: `train`, `train+test`, `train[:75%]`,
            `train[100:200]`; or one of `tfds.even_splits`.

    Raises:
        ValueError: If the files are missing, damaged or not array_record, or the split does not exist or
            has no examples.
    """
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)  # The type annotations are incomplete.
        info = builder.info
        splits = {name: info.splits[name].num_examples for name in sorted(info.splits)}
    except Exception as error:  # Files may have any content, and features of packages that are missing.
        raise ValueError(
            f"{str(folder)!r} is no prepared dataset that tensorflow-datasets {tfds.__version__} can read "
            f"({type(error).__name__}: {error}); prepare it again"
        ) from error
    array_record = tfds.core.FileFormat.ARRAY_RECORD
    if array_record not in (info.file_format, *info.alternative_file_formats):
        found = info.file_format.value if info.file_format else "an unknown format"
        raise ValueError(
            f"{info.full_name} in {str(folder)!r} is prepared as {found}, which needs TensorFlow; prepare it "
            f"again with tfds.builder({info.full_name.rsplit('/', 1)[0]!r}, data_dir=..., "
            "file_format='array_record').download_and_prepare(), or convert it with python -m "
            f"tensorflow_datasets.scripts.convert_format --dataset_version_dir={folder} "
            "--out_file_format=array_record --out_dir=FOLDER"
        )
    if info.file_format != array_record:
        info.set_file_format(array_record, override=True, override_if_initialized=True)
    try:
        chosen = info.splits[split]
        count, files = chosen.num_examples, sorted({os.fspath(path) for path in chosen.filepaths})
    except (AssertionError, KeyError, ValueError) as error:
        sizes = ", ".join(f"{name!r} ({size:,} examples)" for name, size in splits.items())
        raise ValueError(
            f"{info.full_name} has no split {split!r}; its splits are {sizes}, "
            "and parts of them are written as 'train[:75%]', 'train[100:200]' or 'train+test'"
        ) from error
    if not count:
        raise ValueError(f"split {split!r} of {info.full_name} has no examples")
    if missing := [file for file in files if not os.path.isfile(file)]:
        raise ValueError(f"{info.full_name} is incomplete: {abridged(missing, 1)} missing; prepare it again")
    digest = hashlib.sha256(repr((info.full_name, split, count)).encode())
    for file in files:
        status = os.stat(file)
        digest.update(repr((os.path.basename(file), status.st_size, status.st_mtime_ns)).encode())
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return Records(info, builder.as_data_source(split, deserialize_method=raw), digest.hexdigest())


def _path(features: Any, name: str) -> tuple[str, ...]:
    """Returns the keys that lead to a feature such as `OUTER/INNER`."""
    if name in features:
        return (name,)
    outer, _, rest = name.partition("/")
    return (outer, *_path(features[outer], rest))


def _outer(path: tuple[str, ...], value: Any) -> Any:
    """Returns a value in the nested dictionaries that a path leads through."""
    return functools.reduce(lambda inner, key: {key: inner}, reversed(path), value)


def _inner(tree: Any, path: tuple[str, ...]) -> Any:
    """Returns the value that a path leads to in nested dictionaries."""
    return functools.reduce(lambda outer, key: outer[key], path, tree)
