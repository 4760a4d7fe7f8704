"""The examples of a dataset that tensorflow-datasets has prepared, read without TensorFlow."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer_jax.data.contents import Content, read_each
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.image_files import abridged
from transfer_jax.data.tfds_shards import Shard, ShardRecords


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """One split of a prepared dataset.

    Attributes:
        info: The `tfds.core.DatasetInfo`.
        shards: The files, in the order of the examples.
        fingerprint: SHA-256 of name, version, split, number of examples, and the files' sizes and times.
    """

    info: Any
    shards: tuple[Shard, ...]
    fingerprint: str

    def __len__(self) -> int:
        return sum(shard.take for shard in self.shards)

    def columns(self, *names: str) -> dict[str, list]:
        """Returns the values of some features for all examples; other features are not decoded.

        Args:
            *names: Names of features, `OUTER/INNER` for those in dictionaries.

        Raises:
            ValueError: If a file is truncated or damaged.
        """
        features = {name: self.feature(name) for name in names}
        columns: dict[str, list] = {name: [] for name in names}
        for shard in self.shards:
            for block in shard.blocks():
                for name, feature in features.items():
                    columns[name] += [feature.value(example) for example in block]
        return columns

    def feature(self, name: str, *, decoded: bool = True) -> "ReadFeature":
        """Returns the function from a serialized example to one of its features.

        Args:
            name: Name of the feature.
            decoded: Whether images are decoded; otherwise they are encoded files.
        """
        import tensorflow_datasets as tfds

        path = _path(self.info.features, name)
        feature = _inner(self.info.features, path)
        encoded = not decoded and isinstance(feature, tfds.features.Image)
        return ReadFeature(tfds.features.FeaturesDict(_outer(path, feature)), path, encoded)

    def reader(self, name: str) -> "ReadRecords":
        """Returns the function from the position of an example to its encoded image, or to its array."""
        return ReadRecords(ShardRecords(self.shards), self.feature(name, decoded=False))


class ReadFeature:
    """A function from a serialized example to one feature. Other processes may receive it.

    Args:
        features: The `tfds.features.FeaturesDict` with this feature only.
        path: The keys that lead to it.
        encoded: Whether it is an image that is returned as an encoded file.
    """

    def __init__(self, features: Any, path: tuple[str, ...], encoded: bool) -> None:
        self._features, self._path, self._encoded = features, path, encoded

    @functools.cached_property
    def _decoders(self) -> Any:
        import tensorflow_datasets as tfds

        return _outer(self._path, tfds.decode.SkipDecoding()) if self._encoded else None

    def value(self, example: bytes) -> Any:
        """Returns the value of the feature."""
        return _inner(self._features.deserialize_example_np(example, decoders=self._decoders), self._path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_decoders"}


class ReadRecords:
    """A `Read` and, with `many`, a `ReadMany` of one feature of records.

    Args:
        records: The serialized examples.
        feature: The feature.
    """

    def __init__(self, records: ShardRecords, feature: ReadFeature) -> None:
        self.records, self.feature = records, feature

    def __call__(self, index: int) -> Content:
        return self.feature.value(self.records[index])

    def many(self, indices: Sequence[int]) -> list[Content | BadImageError | OSError]:
        """Returns the contents of several examples, or the errors of unreadable ones."""
        try:
            records = self.records.__getitems__(indices)
        except OSError:  # One of them is bad.
            return read_each(self, indices)
        return [self.feature.value(record) for record in records]


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
    info, parts = prepared_split(folder, split)
    count = sum(_taken(part) for part in parts)
    files = sorted({os.fspath(part.filename) for part in parts})
    if missing := [file for file in files if not os.path.isfile(file)]:
        raise ValueError(f"{info.full_name} is incomplete: {abridged(missing, 1)} missing; prepare it again")
    digest = hashlib.sha256(repr((info.full_name, split, count)).encode())
    stamps = {}
    for file in files:
        status = os.stat(file)
        stamps[file] = status.st_size, status.st_mtime_ns
        digest.update(repr((os.path.basename(file), *stamps[file])).encode())
    shards = []
    for part in parts:
        file = os.fspath(part.filename)
        shards.append(Shard(file, part.skip, _taken(part), part.examples_in_shard, *stamps[file]))
    return Records(info, tuple(shards), digest.hexdigest())


def prepared_split(folder: Path, split: Any) -> tuple[Any, list[Any]]:
    """Returns the description of a prepared dataset, and the parts of files of one split.

    Args:
        folder: The folder of a version. Its `.array_record` files need not be there.
        split: As for `open_records`.

    Raises:
        ValueError: If the description is damaged, the files are not array_record, or the split does not exist
            or has no examples.
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
        count, parts = chosen.num_examples, [*chosen.file_instructions]
    except (AssertionError, KeyError, ValueError) as error:
        sizes = ", ".join(f"{name!r} ({size:,} examples)" for name, size in splits.items())
        raise ValueError(
            f"{info.full_name} has no split {split!r}; its splits are {sizes}, "
            "and parts of them are written as 'train[:75%]', 'train[100:200]' or 'train+test'"
        ) from error
    if not count:
        raise ValueError(f"split {split!r} of {info.full_name} has no examples")
    return info, parts


def _taken(part: Any) -> int:
    """Returns the number of records of a part of a file."""
    return part.examples_in_shard - part.skip if part.take == -1 else part.take


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
